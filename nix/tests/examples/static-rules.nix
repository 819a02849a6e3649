{
  networking.nftables.enable = true;
  services.flowctl = {
    enable = true;
    table.static = true;
    interfaces.wan.device = "ppp0";
    subnets.home = "192.168.1.0/24";
    thresholds.uplink_full = {
      counter = "wan_out";
      raise = "40Mbit/s";
    };
  };
}
