# A router with a client and a server, in virtual machines: the unit comes up, counts what passes, names the client when it
# fills the uplink, is reloaded without a restart when its configuration changes, and keeps its totals over both.
{ pkgs, self }:
pkgs.testers.runNixOSTest {
  name = "flowctl-router";

  nodes = {
    router = {
      imports = [ self.nixosModules.default ];
      virtualisation.vlans = [
        1
        2
      ];
      networking.nat = {
        enable = true;
        internalInterfaces = [ "eth1" ];
        externalInterface = "eth2";
      };
      services.flowctl = {
        enable = true;
        interfaces.wan.device = "eth2";
        interfaces.lan.device = "eth1";
        thresholds.uplink_full = {
          counter = "wan_out";
          raise = "1Mbit/s";
          hold = "1s";
          release = "1s";
        };
      };
      specialisation.more.configuration.services.flowctl.counters.lan_to_wan = {
        "in" = "lan";
        out = "wan";
      };
    };

    client =
      { lib, nodes, ... }:
      {
        virtualisation.vlans = [ 1 ];
        networking.defaultGateway =
          (lib.head nodes.router.networking.interfaces.eth1.ipv4.addresses).address;
      };

    server = {
      virtualisation.vlans = [ 2 ];
      networking.firewall.enable = false;
      services.iperf3.enable = true;
    };
  };

  testScript = ''
    import json

    def status():
        return json.loads(router.succeed("flowctl status --json"))

    def counted(name):
        return next(c["bytes"] for c in status()["counters"] if c["name"] == name)

    start_all()
    router.wait_for_unit("flowctl.service")
    server.wait_for_unit("iperf3.service")
    client.wait_for_unit("multi-user.target")

    with subtest("what passes is counted, and who moved it is named"):
        client.succeed("${pkgs.iperf3}/bin/iperf3 --client server --time 10 --bitrate 8M")
        assert counted("wan_out") > 5_000_000
        router.wait_until_succeeds("flowctl log | grep 'wan_out .*192[.]168[.]1[.]'", timeout=60)

    with subtest("another configuration is a reload, not a restart"):
        pid = router.succeed("systemctl show --property MainPID flowctl.service")
        before = counted("wan_out")
        router.succeed("/run/current-system/specialisation/more/bin/switch-to-configuration test")
        router.wait_until_succeeds("flowctl status --json | grep lan_to_wan", timeout=30)
        assert pid == router.succeed("systemctl show --property MainPID flowctl.service")
        assert counted("wan_out") >= before

    with subtest("totals go on after a restart"):
        before = counted("wan_out")
        router.succeed("systemctl restart flowctl.service")
        assert counted("wan_out") >= before

    with subtest("flowctl remove leaves nothing"):
        router.succeed("flowctl remove")
        router.fail("${pkgs.nftables}/bin/nft list table inet flowctl")
  '';
}
