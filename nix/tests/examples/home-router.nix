{
  # Two VLANs on the port of the house, PPPoE on that of the provider, and a tunnel.
  networking.vlans.iot = {
    id = 20;
    interface = "lan0";
  };
  networking.vlans.guest = {
    id = 30;
    interface = "lan0";
  };
  services.pppd.enable = true;
  networking.wireguard.interfaces.wg0 = {
    ips = [ "10.9.0.1/24" ];
    privateKeyFile = "/var/lib/wireguard/key";
  };

  services.flowctl = {
    enable = true;

    interfaces = {
      # What PPPoE carries passes as packets of ppp0; the Ethernet device below it shows none of it.
      wan = {
        device = "ppp*";
        capacity = {
          "in" = "500Mbit/s";
          out = "50Mbit/s";
        };
      };
      lan.device = "lan0";
      # A VLAN is a device of its own: lan0 does not count its packets again.
      iot.device = "iot";
      guest.device = "guest";
      # What is in the tunnel. Its encrypted packets count in wan.
      vpn.device = "wg0";
    };

    subnets = {
      home = [
        "192.168.1.0/24"
        "fd00:1::/64"
      ];
      things = "192.168.20.0/24";
      # Follows the prefixes on the device, delegated IPv6 ones too.
      guests.device = "guest";
      road = "10.9.0.0/24";
    };

    counters = {
      things_to_internet = {
        from = "things";
        out = "wan";
      };
      guests_to_home = {
        "in" = "guest";
        to = "home";
      };
      road_to_home = {
        from = "road";
        to = "home";
      };
    };

    thresholds = {
      uplink_full = {
        counter = "wan_out";
        raise = "80%";
        clear = "60%";
      };
      downlink_full = {
        counter = "wan_in";
        raise = "90%";
        hold = "10s";
      };
      things_phone_home = {
        counter = "things_to_internet";
        raise = "2Mbit/s";
      };
      # Any traffic at all.
      guests_reach_home = {
        counter = "guests_to_home";
        raise = "0bit/s";
      };
    };

    hosts = {
      nas = [
        "192.168.1.5"
        "fd00:1::5"
      ];
      printer = "02:00:5e:10:00:01";
    };
    names.leases = "/var/lib/dnsmasq/dnsmasq.leases";
  };
}
