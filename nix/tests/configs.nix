# The configurations that the tests evaluate. Those in examples/ and mistakes/ are the ones that docs/nixos.md shows.
let
  folder =
    path:
    builtins.listToAttrs (
      map (file: {
        name = builtins.head (builtins.match "(.*)[.]nix" file);
        value = path + "/${file}";
      }) (builtins.attrNames (builtins.readDir path))
    );

  # `settings` with one interface, so that there is something to refer to.
  withWan = settings: {
    services.flowctl = {
      enable = true;
    }
    // settings
    // {
      interfaces = {
        wan.device = "ppp0";
      }
      // settings.interfaces or { };
    };
  };
  threshold =
    settings:
    withWan {
      thresholds.full = {
        counter = "wan_out";
        raise = "1Mbit/s";
      }
      // settings;
    };
in
rec {
  # Evaluate, pass their assertions and `flowctl check`.
  right = removeAttrs (folder ./examples) [ "flake" ] // {
    nftables-enabled = withWan { } // {
      networking.nftables.enable = true;
    };

    every-option = {
      services.flowctl = {
        enable = true;
        tick = "500ms";
        table.name = "accounting";
        table.protect = "auto";
        interfaces.wan = {
          device = [
            "ppp*"
            "wwan0"
          ];
          capacity = {
            "in" = "0.5 Gbit/s";
            out = "6MB/s";
          };
        };
        interfaces.lan = {
          device = "br-lan";
          capacity = "1gbit/s";
        };
        subnets = {
          home = [
            "192.168.1.0/24"
            "fd00:1::/64"
            "64:ff9b::192.0.2.0/120"
          ];
          server = "192.168.2.5";
          guests.device = "br-guests";
          labs.device = [
            "lab*"
            "lab-0"
          ];
        };
        counters = {
          upload = {
            "in" = "lan";
            out = [ "wan" ];
            from = [
              "home"
              "10.0.0.0/8"
            ];
            to = "203.0.113.9";
          };
          old = {
            existing = "ip filter wan/in";
            "in" = "wan";
          };
        };
        thresholds = {
          full = {
            counter = "upload";
            raise = "80%";
            clear = "30Mbit/s";
            hold = "0s";
            release = "1.5m";
            drilldown = false;
          };
          flood = {
            counter = "wan_in";
            raise = "20 kpps";
            clear = "5Kpps";
          };
        };
        drilldown = {
          interval = "2s";
          top = 20;
          max_duration = "1h";
          cpu_budget = "12.5%";
          label_base = 64;
        };
        log = {
          path = "verdicts.jsonl";
          max_size = "64MiB";
          keep = 0;
        };
        control.socket = "/run/flowctl/other.sock";
        hosts = {
          nas = [
            "192.168.1.5"
            "fd00:1::5"
          ];
          "printer.lan" = "02-00-5E-10-0-1";
        };
        names.leases = [ ];
      };
    };

    # What no option is made for goes through, beside what options are made for.
    settings = {
      services.flowctl = {
        enable = true;
        tick = "5s";
        settings = {
          interfaces.wan.device = "ppp0";
          table.protect = "off";
        };
      };
    };

    renamed-table = withWan { table.name = "accounting"; };

    nothing-to-count.services.flowctl = {
      enable = true;
      tick = "5s";
      interfaces = { };
    };

    config-file.services.flowctl = {
      enable = true;
      configFile = ./example.toml;
    };

    # Its name has what a shell would read as more than letters.
    config-file-in-a-folder =
      { pkgs, ... }:
      {
        services.flowctl.enable = true;
        services.flowctl.configFile = "${
          pkgs.runCommand "routers" { } ''
            mkdir "$out"
            cp ${./example.toml} "$out/the north's.toml"
          ''
        }/the north's.toml";
      };

    # A socket whose name has what systemd would read as more than letters.
    socket-with-specifiers = withWan { control.socket = "/run/flowctl/100% of $HOME.sock"; };

    package-of-an-overlay = withWan { } // {
      nixpkgs.overlays = [
        (final: _: {
          flowctl = final.callPackage ../package.nix { } // {
            name = "flowctl-of-an-overlay";
          };
        })
      ];
    };

    unchecked = withWan { checkConfig = false; };

    # A file that is written on the machine: nothing of it is known when the system is built.
    config-file-of-the-machine.services.flowctl = {
      enable = true;
      configFile = "/etc/router/flowctl.toml";
    };

    own-sysctl = withWan { } // {
      boot.kernel.sysctl."net.netfilter.nf_conntrack_timestamp" = 0;
    };

    disabled.services.flowctl = {
      enable = false;
      interfaces.wan.device = "ppp0";
    };

    overlap-that-is-meant.services.flowctl = {
      enable = true;
      allowOverlappingSubnets = true;
      subnets.inside = "10.0.0.0/8";
      subnets.home = "10.1.0.0/16";
    };

    # Subnets that share no address, and a prefix inside another of its own subnet.
    no-overlap.services.flowctl = {
      enable = true;
      subnets.home = [
        "192.168.1.0/25"
        "192.168.1.0/26"
        "fd00::/64"
      ];
      subnets.guests = [
        "192.168.1.128/25"
        "fd00:0:0:1::/64"
      ];
    };

    flush-with-protection = withWan { } // {
      networking.nftables.enable = true;
      networking.nftables.flushRuleset = true;
    };
    flush-without-protection = withWan { table.protect = "off"; } // {
      networking.nftables.enable = true;
      networking.nftables.flushRuleset = true;
    };
    flush-on-an-older-kernel = withWan { } // {
      networking.nftables.enable = true;
      networking.nftables.flushRuleset = true;
      boot.kernelPackages.kernel.version = "6.6.70";
    };

    existing-of-a-foreign-table =
      withWan {
        counters.old = {
          existing = "ip accounting wan";
          "in" = "wan";
        };
      }
      // {
        networking.nftables.enable = true;
        networking.nftables.tables.accounting = {
          family = "inet";
          content = "";
        };
      };

    static-protected =
      withWan {
        table = {
          static = true;
          protect = "auto";
          name = "traffic";
        };
      }
      // {
        networking.nftables.enable = true;
      };
  };

  # That many subnets, of which none overlaps another.
  subnets = count: {
    services.flowctl.enable = true;
    services.flowctl.subnets = builtins.listToAttrs (
      builtins.genList (index: {
        name = "subnet_${toString index}";
        value =
          let
            high = index / 256;
          in
          [
            "10.${toString high}.${toString (index - high * 256)}.0/24"
            "fd00:${toString index}::/48"
          ];
      }) count
    );
  };

  # Those of `right` whose file has [table] static.
  static = [
    "static-protected"
    "static-rules"
  ];

  # Evaluate, but an assertion fails.
  asserted = removeAttrs (folder ./mistakes) [ "rate-without-unit" ] // {
    undefined-with-nothing-near = withWan { counters.x."in" = "elsewhere"; };
    undefined-subnet = withWan {
      subnets.home = "10.0.0.0/8";
      counters.x.from = [
        "hoem"
        "192.168.0.0/16"
      ];
    };
    host-bits = withWan {
      subnets.home = [ "192.168.1.5/24" ];
      subnets.six = "fd00:1:0:8001::1/49";
      counters.x.to = "10.1.0.0/12";
    };
    same-prefix-twice = withWan {
      subnets.home = [
        "192.168.1.0/24"
        "fd00::/64"
      ];
      subnets.iot = "192.168.1.0/24";
    };
    percent-without-capacity = withWan {
      interfaces.lan = {
        device = "lan0";
        capacity.out = "1Gbit/s";
      };
      subnets.home = "10.0.0.0/8";
      counters.both.out = [
        "lan"
        "wan"
      ];
      counters.into."in" = "lan";
      thresholds.up = {
        counter = "both";
        raise = "80%";
      };
      thresholds.down = {
        counter = "into";
        raise = "1Gbit/s";
        clear = "50%";
      };
      thresholds.home = {
        counter = "home_to";
        raise = "80%";
      };
    };
    taken-name = withWan { counters.wan_in.out = "wan"; };
    bad-name = withWan {
      interfaces.LAN-1.device = "lan0";
      subnets."1st" = "10.0.0.0/8";
    };
    selects-nothing = withWan { counters.x = { }; };
    existing-without-flows = withWan {
      counters.old.existing = "inet accounting wan";
      thresholds.t = {
        counter = "old";
        raise = "1pps";
      };
    };
    config-file-and-settings = withWan { configFile = ./example.toml; };
    config-file-in-json.services.flowctl = {
      enable = true;
      configFile = "/etc/router/flowctl.json";
    };
    socket-elsewhere = withWan { control.socket = "/tmp/flowctl.sock"; };
    log-elsewhere = withWan { log.path = "/var/log/flowctl.jsonl"; };
    static-without-nftables = withWan { table.static = true; };
    static-that-follows =
      withWan {
        table.static = true;
        subnets.guests.device = "br-guests";
      }
      // {
        networking.nftables.enable = true;
      };
    static-without-counters = {
      services.flowctl.enable = true;
      services.flowctl.table.static = true;
      networking.nftables.enable = true;
    };
  };

  # Do not evaluate: an option has a value that it cannot have.
  thrown = {
    inherit (folder ./mistakes) rate-without-unit;
    misspelt-option = withWan { interfaces.lan.devise = "lan0"; };
    misspelt-section = withWan { treshold = { }; };
    misspelt-nested = withWan { drilldown.budget = "5%"; };
    no-device.services.flowctl = {
      enable = true;
      interfaces.wan = { };
    };
    duration-without-unit = threshold { hold = "10"; };
    bits-or-bytes = threshold { clear = "80Mbps"; };
    tick-as-number = withWan { tick = 5; };
    loopback = withWan { interfaces.lo.device = "lo"; };
    prefix-too-long = withWan { subnets.home = "192.168.1.0/33"; };
    prefix-in-a-list = withWan { subnets.home = [ "192.168.1" ]; };
    capacity-in-packets = withWan {
      interfaces.lan = {
        device = "lan0";
        capacity = "5kpps";
      };
    };
    empty-list = withWan { interfaces.lan.device = [ ]; };
    size-without-unit = withWan { log.max_size = "16"; };
    existing-in-two-words = withWan { counters.old.existing = "accounting wan"; };
    given-in-two-places = withWan {
      tick = "1s";
      settings.tick = "2s";
    };
  };

  # Evaluate, and `flowctl check` refuses them when the system is built.
  refused = {
    clear-above-raise = threshold { clear = "2Mbit/s"; };
    keyword = withWan { counters.log.out = "wan"; };
    too-short = withWan { drilldown.interval = "10ms"; };
    unknown-key = withWan { settings.thresold = { }; };
    # No option has such shapes, so only the program can tell.
    shapes.services.flowctl = {
      enable = true;
      settings = {
        subnets = "10.0.0.0/8";
        counters = [ ];
        thresholds.t = 5;
        log.path = "";
      };
    };
    bad-file.services.flowctl = {
      enable = true;
      configFile = ./bad.toml;
    };
  };
}
