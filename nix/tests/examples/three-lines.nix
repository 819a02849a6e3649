{
  services.flowctl.enable = true;
  services.flowctl.interfaces.wan.device = "ppp0";
  services.flowctl.thresholds.uplink_full = {
    counter = "wan_out";
    raise = "40Mbit/s";
  };
}
