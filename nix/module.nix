# The NixOS module: options become one TOML file, checked when the system is built, and one hardened unit that is reloaded
# when that file changes, and restarted when what stands under `table` does. It needs no flake and no overlay, does not
# need networking.nftables, and changes no firewall.
{
  config,
  lib,
  pkgs,
  utils,
  ...
}:
let
  inherit (lib)
    literalExpression
    mkDefault
    mkIf
    mkOption
    types
    ;
  cfg = config.services.flowctl;
  toml = pkgs.formats.toml { };

  mirrored = import ./module/options.nix { inherit lib; };

  # No null and no empty section may come into the file.
  withoutNulls =
    value:
    if lib.isAttrs value then
      lib.mapAttrs (_: withoutNulls) (lib.filterAttrs (_: inner: inner != null) value)
    else
      value;
  given = lib.filterAttrs (_: value: value != { }) (
    withoutNulls (
      lib.getAttrs (lib.attrNames mirrored) cfg
      // {
        table = removeAttrs cfg.table [ "static" ] // {
          static = if cfg.table.static then true else null;
        };
      }
    )
  );

  messages = import ./module/messages.nix { inherit config lib; };

  hasFile = cfg.configFile != null || cfg.settings != { };
  socket = cfg.settings.control.socket or null;
  isStatic = cfg.settings.table.static or false;

  written = "${
    if cfg.configFile != null then cfg.configFile else toml.generate "flowctl.toml" cfg.settings
  }";
  # A path outside of the store is not there yet when the system is built.
  isBuilt = lib.hasPrefix builtins.storeDir written;
  # Keys become options; a file of the user's own has lines that lead to the mistake.
  told =
    if cfg.configFile != null then
      ''
        echo "services.flowctl.configFile: the file has mistakes."
        cat report
      ''
    else
      ''
        echo "services.flowctl: the configuration has mistakes. Each line names an option, and what it should be."
        sed 's|^[^ ]*/[^ :]*-flowctl\.toml:[0-9]*:[0-9]*: |services.flowctl.|' report
      '';
  checked = pkgs.runCommand "flowctl.toml" { nativeBuildInputs = [ cfg.package ]; } ''
    if ! flowctl check --config ${lib.escapeShellArg written} > report 2>&1; then
      {
        ${told}
      } >&2
      exit 1
    fi
    cp ${lib.escapeShellArg written} "$out"
  '';
  file = if cfg.checkConfig && isBuilt then checked else written;

  # NixOS puts the table's name and braces around this itself, and replaces the table at each reload.
  staticTable = pkgs.runCommand "flowctl.nft" { nativeBuildInputs = [ cfg.package ]; } ''
    flowctl plan --format nft --config ${written} > ruleset
    sed '1,/^table inet .* {$/d; $d' ruleset > "$out"
    [ -s "$out" ]
  '';

  flowctl = lib.getExe cfg.package;
  toSocket = lib.optionalString (socket != null) " --socket ${utils.escapeSystemdExecArg socket}";
in
{
  options.services.flowctl = mirrored // {
    enable = lib.mkEnableOption "flowctl, which counts traffic with nftables and tells who moved it when a threshold is crossed";

    package = lib.mkPackageOption pkgs "flowctl" { } // {
      default = pkgs.flowctl or (pkgs.callPackage ./package.nix { });
      defaultText = literalExpression "pkgs.flowctl or (pkgs.callPackage ./nix/package.nix { })";
    };

    settings = mkOption {
      type = toml.type;
      default = { };
      description = ''
        The configuration file as a whole. All other options are merged into it, so it is for keys that have no option of
        their own. With no setting at all flowctl counts what it finds.
      '';
      example = literalExpression ''{ tick = "5s"; }'';
    };

    configFile = mkOption {
      type = types.nullOr types.path;
      default = null;
      description = ''
        A file in TOML to use instead of all other settings. Where it is in the Nix store, it is checked like them. What
        is written in JSON goes into {option}`services.flowctl.settings`, by `lib.importJSON`.
      '';
      example = literalExpression "./flowctl.toml";
    };

    checkConfig = mkOption {
      type = types.bool;
      default = true;
      description = ''
        Whether `flowctl check` must accept the configuration before the system is built. Switch it off where the package
        cannot be run on the building machine.
      '';
    };

    allowOverlappingSubnets = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether a prefix may lie in that of another subnet, so that its traffic counts in both. Otherwise it is taken for
        a mistake.
      '';
    };
  };

  config = mkIf cfg.enable {
    services.flowctl.settings = given;

    inherit (messages) assertions warnings;

    environment.systemPackages = [ cfg.package ];
    environment.etc = mkIf hasFile { "flowctl/flowctl.toml".source = file; };

    # Who may ask the daemon. The daemon's own user is a dynamic one of another name.
    users.groups.flowctl = { };

    # Without these modules the sysctls do not exist yet when systemd-sysctl runs.
    boot.kernelModules = [
      "nfnetlink"
      "nf_tables"
      "nf_conntrack"
      "nf_conntrack_netlink"
    ];
    # Drilldowns need them; the unit may not set them.
    boot.kernel.sysctl = {
      "net.netfilter.nf_conntrack_acct" = mkDefault 1;
      "net.netfilter.nf_conntrack_events" = mkDefault 1;
      "net.netfilter.nf_conntrack_timestamp" = mkDefault 1;
    };

    networking.nftables = mkIf isStatic {
      tables.${cfg.settings.table.name or "flowctl"} = {
        family = "inet";
        content = ''
          include "${staticTable}"
        '';
      };
    };

    systemd.services.flowctl = {
      description = "Traffic counters that name who moved the bytes";
      documentation = [ "man:flowctl(1)" ];
      wantedBy = [ "multi-user.target" ];
      wants = mkIf (!hasFile) [ "network-online.target" ];
      after = [
        "systemd-modules-load.service"
        "systemd-sysctl.service"
        "nftables.service"
      ]
      ++ lib.optional (!hasFile) "network-online.target";
      reloadTriggers = mkIf hasFile [ config.environment.etc."flowctl/flowctl.toml".source ];
      # The daemon refuses to change its table while it runs.
      restartTriggers = mkIf (cfg.settings ? table) [ (builtins.toJSON cfg.settings.table) ];
      # Only a restart keeps what is in the descriptor store; a stop and a start would not.
      stopIfChanged = false;
      startLimitBurst = 5;
      startLimitIntervalSec = 10;
      serviceConfig = import ./module/service.nix // {
        ExecStart = "${flowctl} run${lib.optionalString hasFile " --config /etc/flowctl/flowctl.toml"}";
        ExecReload = "${flowctl} reload${toSocket}";
      };
    };
  };
}
