# One router of the fleet.
{ lib, ... }:
{
  imports = [ ./fleet.nix ];
  networking.hostName = "north";
  services.flowctl = {
    interfaces.wan = {
      device = "ppp0";
      capacity = {
        "in" = "100Mbit/s";
        out = "40Mbit/s";
      };
    };
    # This one may be full for a while before anyone looks.
    thresholds.uplink_full.hold = "30s";
    thresholds.downlink_full.raise = lib.mkForce "95Mbit/s";
  };
}
