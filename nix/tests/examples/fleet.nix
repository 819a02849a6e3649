# fleet.nix: what all routers have in common.
{ config, lib, ... }:
let
  cfg = config.services.flowctl;
in
{
  services.flowctl = {
    enable = true;
    interfaces.wan.device = lib.mkDefault "wan0";
    interfaces.lan.device = lib.mkDefault "lan0";
    subnets.inside.device = cfg.interfaces.lan.device;
    # Only where someone said what the link carries.
    thresholds = lib.mkIf (cfg.interfaces.wan.capacity != null) {
      uplink_full = {
        counter = "wan_out";
        raise = "80%";
      };
      downlink_full = {
        counter = "wan_in";
        raise = "80%";
      };
    };
  };
}
