{
  # As it was: counters in a table of your own.
  networking.nftables.enable = true;
  networking.nftables.tables.accounting = {
    family = "inet";
    content = ''
      counter lan_to_wan { }
      chain forward {
        type filter hook forward priority filter + 10;
        iifname "lan0" oifname "ppp0" counter name lan_to_wan
      }
    '';
  };

  services.flowctl = {
    enable = true;
    interfaces.wan = {
      device = "ppp0";
      capacity.out = "50Mbit/s";
    };
    interfaces.lan.device = "lan0";
    # What the old counter counts, under a name of flowctl. The interfaces say which flows belong to it.
    counters.old_lan_to_wan = {
      existing = "inet accounting lan_to_wan";
      "in" = "lan";
      out = "wan";
    };
    # What takes its place: compare the two for a while, then take the table away.
    counters.lan_to_wan = {
      "in" = "lan";
      out = "wan";
    };
    thresholds.lan_fills_uplink = {
      counter = "old_lan_to_wan";
      raise = "80%";
    };
  };
}
