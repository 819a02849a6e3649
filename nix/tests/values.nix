# Values that the types of the module and the program must judge alike: whatever the program takes, the type takes. Where
# only the program knows a bound, the text is listed under `bounds`; what could be read in two ways, and only the type refuses,
# under `doubtful`. Each comes as the settings that have it.
{
  lib,
  file ? ../module/types.nix,
}:
let
  types = import file { inherit lib; };
  interface = more: {
    interfaces.a = {
      device = "a";
    }
    // more;
  };
  threshold =
    more:
    interface {
      capacity = "1Gbit/s";
    }
    // {
      thresholds.t = {
        counter = "a_in";
        raise = "0bit/s";
        clear = "0bit/s";
      }
      // more;
    };
  kinds = {
    duration = {
      in_ = text: threshold { hold = text; };
      texts = [
        "1s"
        "100ms"
        "1.5s"
        " 1s"
        "1s "
        "10 m"
        "1h"
        "0s"
        "1"
        "s"
        "1d"
        "1S"
        "1.s"
        ".5s"
        "-1s"
        "1e3s"
        "1.2.3s"
        ""
      ];
      bounds = [ "9999h" ];
    };
    bitRate = {
      in_ = text: interface { capacity = text; };
      texts = [
        "500Mbit/s"
        "500mbit/s"
        "500 MBIT/S"
        "1Gbit/s"
        "1KiB/s"
        "1kib/s"
        "1mB/s"
        "6MB/s"
        "1B/s"
        "1bit/s"
        "0.5Gbit/s"
        "500"
        "500M"
        "500Mb/s"
        "500Mbps"
        "1Tbit/s"
        "500Mbit"
        "500 M bit/s"
        "1pps"
        "80%"
        "-1bit/s"
        "1,5Mbit/s"
        ""
      ];
      bounds = [
        "0bit/s"
        "9999999Gbit/s"
      ];
    };
    level = {
      in_ =
        text:
        threshold {
          raise = text;
          clear = text;
        };
      texts = [
        "80%"
        "80 %"
        "94.5%"
        "20kpps"
        "20 KPPS"
        "1Mpps"
        "0bit/s"
        "0pps"
        "40Mbit/s"
        "40"
        "40mb/s"
        "%"
        "20kpp"
        "20k pps"
        "100%%"
      ];
      bounds = [
        "0%"
        "101%"
      ];
    };
    percentage = {
      in_ = text: interface { } // { drilldown.cpu_budget = text; };
      texts = [
        "5%"
        "12.5 %"
        "100%"
        "5"
        "5pct"
        "%5"
        "nan%"
      ];
      bounds = [
        "0%"
        "100.1%"
      ];
    };
    size = {
      in_ = text: interface { } // { log.max_size = text; };
      texts = [
        "16MiB"
        "16MB"
        "16777216B"
        "16 kb"
        "16kiB"
        "16MIB"
        "16"
        "16M"
        "16Mb"
        "16TiB"
        "-16MB"
      ];
      bounds = [ "1B" ];
    };
    device = {
      in_ = text: { interfaces.a.device = text; };
      texts = [
        "eth0"
        "ppp*"
        "br-lan"
        "eth0.20"
        "a@b"
        "a]b"
        "a[b"
        "123456789012345"
        "12345678901234*"
        "1234567890123456"
        "123456789012345*"
        "*"
        "a*b"
        "a**"
        "lo"
        "lo*"
        "."
        ".."
        "a b"
        "a/b"
        "a:b"
        ""
        "é"
        "..."
      ];
      bounds = [ ];
    };
    prefix = {
      in_ = text: { subnets.a = text; };
      texts = [
        "10.0.0.0/8"
        "10.0.0.1"
        "0.0.0.0/0"
        "255.255.255.255/32"
        "10.0.0.0/33"
        "10.0.0/8"
        "10.0.0.0.0/8"
        "256.0.0.0"
        "10.0.0.0/"
        "/8"
        "10.0.0.0/-1"
        "10.0.0.0 /8"
        " 10.0.0.0/8"
        "::/0"
        "::"
        "::1"
        "fd00::/8"
        "fd00:1::/64"
        "FD00:1::/64"
        "1:2:3:4:5:6:7:8"
        "1:2:3:4:5:6:7::"
        "::2:3:4:5:6:7:8"
        "1::8/128"
        "1:2:3:4:5:6:7"
        "1:2:3:4:5:6:7:8:9"
        "1::2::3"
        ":::"
        ":"
        "1:"
        ":1"
        "12345::"
        "g::"
        "::/129"
        "fe80::1%eth0"
        "[::1]"
        "64:ff9b::192.0.2.1"
        "::1.2.3.4"
        "1:2:3:4:5:6:1.2.3.4"
        "1:2:3:4:5:6:7:1.2.3.4"
        "1.2.3.4::"
        "::1.2.3"
        ""
      ];
      # Told by an assertion, with the network; and by the program alone.
      bounds = [ "::ffff:1.2.3.4" ];
    };
    station = {
      in_ = text: { hosts.a = text; };
      texts = [
        "192.168.1.5"
        "fd00::5"
        "02:00:5e:10:00:01"
        "2-0-5E-10-0-1"
        "02:00:5e:10:00"
        "02:00:5e:10:00:01:02"
        "02:00:5e:10:00:0g"
        "192.168.1.0/24"
        "nas"
        ""
      ];
      bounds = [
        "02-00:5e:10:00:01"
        "::ffff:1.2.3.4"
        "ff:ff:ff:ff:ff:ff"
      ];
    };
    existing = {
      in_ = text: { counters.a.existing = text; };
      texts = [
        "inet t c"
        "  ip6  a-b  c/d.e "
        "netdev t c"
        "t c"
        "inet t"
        "inet t c d"
        "nat t c"
        "INET t c"
        "inet t {c"
        "inet\tt c"
      ];
      bounds = [ "inet flowctl c" ];
    };
    absoluteFile = {
      in_ = text: { control.socket = text; };
      texts = [
        "/run/a.sock"
        "/a"
        "/"
        "a.sock"
        "/run/"
        ""
        "/run/.."
      ];
      bounds = [ ];
    };
    file = {
      in_ = text: interface { } // { log.path = text; };
      texts = [
        "a.jsonl"
        "a/b.jsonl"
        "/var/log/a"
        "a/"
        "/"
        ""
        ".."
        "a/.."
      ];
      bounds = [ "totals.json" ];
    };
    tableName = {
      in_ = text: interface { } // { table.name = text; };
      texts = [
        "flowctl"
        "_Flow1"
        "A"
        "0a"
        "a-b"
        "a.b"
        ""
      ];
      bounds = [ "inet" ];
    };
  };
  doubtful = {
    prefix = [
      "010.0.0.0/8"
      "10.0.0.0/08"
    ];
    station = [ "002:00:5e:10:00:01" ];
  };
  each =
    kind:
    {
      in_,
      texts,
      bounds,
    }:
    map (
      text:
      let
        settings = builtins.toFile "value.json" (builtins.toJSON (in_ text));
        taken =
          if types.${kind}.check text then
            if lib.elem text bounds then "bound" else "taken"
          else if lib.elem text (doubtful.${kind} or [ ]) then
            "doubtful"
          else
            "refused";
      in
      "${settings} ${taken} ${kind} ${builtins.toJSON text}\n"
    ) (texts ++ bounds ++ doubtful.${kind} or [ ]);
in
lib.concatStrings (lib.concatLists (lib.mapAttrsToList each kinds))
