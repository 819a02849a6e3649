{
  services.flowctl.enable = true;
  services.flowctl.interfaces.wan.device = "ppp0";
  services.flowctl.counters.upload.out = "wna";
}
