# The options that mirror the configuration file, key by key. An option that is not set leaves no key, so that flowctl's
# own default holds; each description names it.
{ lib }:
let
  inherit (lib) literalExpression mkOption types;
  values = import ./types.nix { inherit lib; };

  # A key that may be left out.
  key =
    type: description: example:
    mkOption {
      type = types.nullOr type;
      default = null;
      inherit description example;
    };

  named =
    description: example: type:
    mkOption {
      type = types.attrsOf type;
      default = { };
      inherit description;
      example = literalExpression example;
    };

  section = options: types.submodule { inherit options; };

  # A value, or a section whose options are documented like any other.
  orSection = type: other: types.either type other // { inherit (other) getSubOptions; };

  device = mkOption {
    type = values.oneOrMore values.device;
    description = ''
      Name of a device, or a list of names. `"ppp*"` means every device whose name begins so, now and later. Devices
      need not exist when flowctl starts, and may come and go.
    '';
    example = [
      "br-lan"
      "wg*"
    ];
  };

  capacities = section {
    "in" =
      key values.bitRate "What the link can bring in, as a bit rate. Default: not known."
        "500Mbit/s";
    out =
      key values.bitRate "What the link can carry out, as a bit rate. Default: not known."
        "50Mbit/s";
  };

  interface = section {
    inherit device;
    capacity = key (orSection values.bitRate capacities) ''
      What the link can carry: a bit rate for both directions, or one each as `"in"` and `out`. A threshold in percent
      is taken of it. Default: not known.
    '' (literalExpression ''{ "in" = "500Mbit/s"; out = "50Mbit/s"; }'');
  };

  subnet = orSection (values.oneOrMore values.prefix) (section {
    inherit device;
  });

  interfacesOf =
    what:
    key (values.oneOrMore values.name) ''
      Packets that ${what} by this interface: a name in {option}`services.flowctl.interfaces`, or a list of names.
      Default: by any.
    '';
  addressesOf =
    what:
    key (values.oneOrMore values.addresses) ''
      Packets whose ${what} is in this subnet: a name in {option}`services.flowctl.subnets`, a prefix, or a list of
      both. Default: any.
    '';

  counter = section {
    "in" = interfacesOf "arrive" "lan";
    out = interfacesOf "leave" [
      "wan"
      "lte"
    ];
    from = addressesOf "source" [
      "iot"
      "10.0.0.0/8"
    ];
    to = addressesOf "destination" "203.0.113.9";
    existing = key values.existing ''
      Read a named counter that someone else declared, by family, table and name, instead of counting. It is never
      changed. Beside it `"in"`, `out`, `from` and `to` say which flows belong to it, and count nothing. Default: flowctl
      counts by itself.
    '' "inet accounting wan_bytes_in";
  };

  threshold = section {
    counter = mkOption {
      type = values.name;
      description = ''
        The counter to watch: one of {option}`services.flowctl.counters`, `NAME_in` or `NAME_out` of an interface, or
        `NAME_from` or `NAME_to` of a subnet.
      '';
      example = "wan_out";
    };
    raise = mkOption {
      type = values.level;
      description = ''
        Above this the threshold is raised: a bit rate, a packet rate, or a percentage of the counter's capacity.
        `"0bit/s"` means any traffic at all.
      '';
      example = "80%";
    };
    clear = key values.level ''
      At or below this it is over; of the same kind as `raise`, and not above it. Default: 80 % of `raise`.
    '' "30Mbit/s";
    hold = key values.duration ''
      How long the rate must stay above `raise` before the threshold fires. Default: `"3s"`, and `"0s"` where `raise` is 0.
    '' "10s";
    release = key values.duration ''
      How long the rate must stay at or below `clear` before it is over. Default: `"10s"`.
    '' "1m";
    drilldown = key types.bool ''
      Whether to look into conntrack for who moved the bytes. Default: `true`.
    '' false;
  };
in
{
  tick = key values.duration ''
    How often all counters are read, from `"100ms"` to `"1h"`. Default: `"1s"`.
  '' "5s";

  table = {
    name = key values.tableName ''
      Name of the nftables table, in the family `inet`. Default: `"flowctl"`.
    '' "accounting";
    protect =
      key
        (types.enum [
          "auto"
          "off"
        ])
        ''
          With `"auto"` flowctl owns its table where the kernel can keep an owned table (Linux 6.9 and newer); elsewhere,
          and with `"off"`, it is a plain table that is repaired when someone removes it. Default: `"auto"`.
        ''
        "off";
    static = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether {option}`networking.nftables` installs the table, and not the daemon: for routers where only the
        configuration may change the ruleset. The rules are made when the system is built. Needs
        {option}`networking.nftables.enable`. Each reload of `nftables.service` sets the kernel's counters to 0; flowctl's
        totals go on. Subnets cannot follow devices then.
      '';
    };
  };

  interfaces = named ''
    Logical interfaces, by name: `a` to `z` first, then `a` to `z`, `0` to `9` and `_`, at most 60 characters. Every
    interface NAME brings the counters `NAME_in` and `NAME_out`.
  '' ''{ wan.device = "ppp0"; lan.device = [ "br-lan" "wg0" ]; }'' interface;

  subnets = named ''
    Names for prefixes, at most 59 characters: a prefix, a list, or `{ device = "br-guests"; }` for the prefixes that
    the device's addresses are in, followed as they change. Every subnet NAME brings the counters `NAME_from` and `NAME_to`.
  '' ''{ home = [ "192.168.1.0/24" "fd00:1::/64" ]; guests.device = "br-guests"; }'' subnet;

  counters = named ''
    What else to count, by name, at most 64 characters. A packet must match every key that is given, and any one entry
    of a list; at least one key is given. `in` is a keyword of Nix, and is written `"in"`.
  '' ''{ iot_to_internet = { from = "iot"; out = "wan"; }; }'' counter;

  thresholds = named ''
    When to look closer, by name: the level on one counter above which flowctl finds out who moves the bytes.
  '' ''{ uplink_full = { counter = "wan_out"; raise = "40Mbit/s"; }; }'' threshold;

  drilldown = {
    interval = key values.duration ''
      The shortest time between two looks into conntrack, from `"100ms"` to `"1h"`. Default: `"1s"`.
    '' "2s";
    top = key (types.ints.between 1 1000) ''
      How many hosts, outside ends, services and flows are named; the others are summed. Default: 10.
    '' 20;
    max_duration = key values.duration ''
      How long a drilldown lasts at most; no less than `interval`. Default: `"10m"`.
    '' "1h";
    cpu_budget = key values.percentage ''
      Share of one core that drilldowns may use, above 0 and at most 100 %. Default: `"5%"`.
    '' "10%";
    label_base = key (types.ints.between 0 126) ''
      The first conntrack label bit that flowctl may use: change it where your own ruleset sets labels. Each interface
      takes two of 128 bits. Default: 0.
    '' 64;
  };

  log = {
    path = key values.file ''
      The file of verdicts and alerts, relative to `/var/lib/flowctl`. Default: `"drilldowns.jsonl"`.
    '' "verdicts.jsonl";
    max_size = key values.size ''
      Size at which the file is rotated, at least `"4KiB"`. Default: `"16MiB"`.
    '' "64MiB";
    keep = key (types.ints.between 0 1000) ''
      How many rotated files are kept. Default: 4.
    '' 10;
  };

  control.socket = key values.absoluteFile ''
    The Unix socket of `flowctl status`, in `/run/flowctl`. Members of the group `flowctl` may read it. Default:
    `"/run/flowctl/control.sock"`.
  '' "/run/flowctl/a.sock";

  hosts =
    named
      ''
        Names of hosts, each with an address, a hardware address, or a list of both. A name with a dot is written in quotes.
      ''
      ''{ nas = [ "192.168.1.5" "fd00:1::5" ]; printer = "02:00:5e:10:00:01"; }''
      (values.oneOrMore values.station);

  names.leases = key (types.either values.absoluteFile (types.listOf values.absoluteFile)) ''
    Lease files, directories of such, or Kea's control sockets to take hosts' names from; an empty list reads none.
    Default: the well-known places of Kea, dnsmasq and systemd-networkd.
  '' [ "/var/lib/dnsmasq/dnsmasq.leases" ];
}
