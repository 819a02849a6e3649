{
  services.flowctl.enable = true;
  services.flowctl.subnets.home = [
    "192.168.1.0/24"
    "fd00:1::/64"
  ];
  services.flowctl.subnets.guests = "192.168.1.128/25";
}
