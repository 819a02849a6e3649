{
  services.flowctl.enable = true;
}
