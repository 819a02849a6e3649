# What fails and what is warned of: the settings as a whole (checks.nix), and what concerns the system around them.
{ config, lib }:
let
  cfg = config.services.flowctl;
  inherit (cfg) settings;
  nftables = config.networking.nftables;
  checks = import ./checks.nix { inherit lib settings; };
  inherit (checks) option says;

  sections = [
    "interfaces"
    "subnets"
    "counters"
  ];
  counts = lib.any (section: settings.${section} or { } != { }) sections;
  socket = settings.control.socket or null;
  log = settings.log.path or "";
  isStatic = settings.table.static or false;
  protect = settings.table.protect or "auto";
  kernel = config.boot.kernelPackages.kernel.version;
  isOwned = protect != "off" && lib.versionAtLeast kernel "6.9";

  demand = assertion: message: { inherit assertion message; };
  declared =
    { family, table, ... }: nftables.tables ? ${table} && nftables.tables.${table}.family == family;
in
{
  assertions =
    checks.problems
    ++ lib.optionals (!cfg.allowOverlappingSubnets) checks.overlaps
    ++ lib.optionals isStatic checks.followed
    ++ [
      (demand (cfg.configFile == null || settings == { }) (
        "${option "configFile"} replaces all other settings, but these are set too: "
        + lib.concatMapStringsSep ", " option (lib.attrNames settings)
        + ". Move them into the file, or leave ${option "configFile"} out."
      ))
      (demand (cfg.configFile == null || !(lib.hasSuffix ".json" (toString cfg.configFile))) (
        "${option "configFile"} is read as TOML, but \"${baseNameOf cfg.configFile}\" is the name of a file in JSON. "
        + "Write ${option "settings"} = lib.importJSON FILE, or the file in TOML."
      ))
      (demand (!isStatic || nftables.enable) (
        "${option "table.static"} = true puts the table into networking.nftables, which is not enabled. "
        + "Set networking.nftables.enable = true, or leave it out: flowctl then installs the table itself."
      ))
      (demand (!isStatic || counts) (
        "${option "table.static"} = true needs something to count. "
        + "Define ${option "interfaces"} or ${option "subnets"}."
      ))
      (demand (socket == null || lib.hasPrefix "/run/flowctl/" socket) (
        "${says "control.socket" (toString socket)} is outside of /run/flowctl, "
        + "the only directory of /run that the unit may write to. "
        + "Write for example \"/run/flowctl/control.sock\"."
      ))
      (demand (!(lib.hasPrefix "/" log) || lib.hasPrefix "/var/lib/flowctl/" log) (
        "${says "log.path" log} is outside of /var/lib/flowctl, the only directory that the unit may keep files in. "
        + "Write a path relative to it, such as \"drilldowns.jsonl\"."
      ))
    ];

  warnings =
    lib.optional (nftables.enable && nftables.flushRuleset && !isStatic && !isOwned) (
      "networking.nftables.flushRuleset is on, and the table of flowctl is not protected: "
      + (
        if protect == "off" then
          "${says "table.protect" protect}. "
        else
          "the kernel (${kernel}) keeps no owned tables, which Linux 6.9 and newer do. "
      )
      + "Each start, stop and reload of nftables.service removes it. flowctl repairs it and its totals go on, "
      + "but what passes until then is not counted. Set networking.nftables.flushRuleset = false."
    )
    ++ map (
      {
        path,
        value,
        table,
        ...
      }:
      "${says path value} is declared in networking.nftables.tables.${table}, "
      + "which NixOS deletes and makes anew at each reload of nftables.service. The total of flowctl goes on; "
      + "what was counted between its last reading and the reload may be missing, and a gap record says so."
    ) (lib.optionals nftables.enable (lib.filter declared checks.existing))
    ++ lib.optional (settings != { } && !counts) (
      "services.flowctl has settings, but nothing to count. Define ${option "interfaces"}, "
      + "or leave all settings out: flowctl then counts what it finds."
    )
    ++ lib.optional (isStatic && settings.table ? protect) (
      "${says "table.protect" protect} has no effect: "
      + "with ${option "table.static"} = true networking.nftables installs the table, and nobody owns it."
    );
}
