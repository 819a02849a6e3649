# The module as NixOS would evaluate it, with a real nixpkgs lib, the real types and unit writer of nixos/lib, and stubs for
# the options that it sets. What it gives is what a test compares: settings, unit, files, assertions, warnings.
{
  # Directories as nix/tests/run prepares them: the lib to test with, and the nixos directory.
  lib,
  nixos,
  # What ExecStart and the check call.
  package ? "/nix/store/00000000000000000000000000000000-flowctl-0.1.0",
  module ? ../module.nix,
}:
let
  # nixos/lib of 2022 calls these; newer libs warn of them or do not have them.
  shimmed = (import lib).extend (
    _: previous: {
      mdDoc = text: text;
      replaceChars = previous.replaceStrings;
    }
  );

  toToml = import ./toml.nix { lib = shimmed; };

  pkgs = {
    lib = shimmed;
    formats.toml = _: {
      type =
        let
          inherit (shimmed) types;
          value =
            types.oneOf [
              types.bool
              types.int
              types.float
              types.str
              types.path
              (types.attrsOf value)
              (types.listOf value)
            ]
            // {
              description = "TOML value";
            };
        in
        value;
      generate = name: value: builtins.toFile name (toToml value);
    };
    # A real derivation, so that a test can build it.
    runCommand =
      name:
      {
        nativeBuildInputs ? [ ],
      }:
      script:
      derivation {
        inherit name;
        system = builtins.currentSystem;
        builder = "/bin/sh";
        args = [
          "-euc"
          "export PATH=${
            shimmed.concatMapStringsSep ":" (input: "${input}/bin") nativeBuildInputs
          }:/usr/sbin:/usr/bin:/sbin:/bin\n${script}"
        ];
      };
    callPackage = _: _: {
      type = "derivation";
      name = "flowctl-0.1.0";
      outPath = package;
      meta.mainProgram = "flowctl";
    };
    buildPackages.xorg.lndir = "/lndir";
    coreutils = "/coreutils";
    findutils = "/findutils";
    gnugrep = "/gnugrep";
    gnused = "/gnused";
  };

  stubs =
    { config, lib, ... }:
    let
      inherit (lib) mkOption types;
      any = mkOption { type = types.unspecified; };
      utils = import (nixos + "/lib/utils.nix") { inherit config lib pkgs; };
    in
    {
      imports = [
        (nixos + "/modules/misc/assertions.nix")
        (nixos + "/modules/config/sysctl.nix")
      ];
      options = {
        environment.etc = mkOption {
          default = { };
          type = types.attrsOf (
            types.submodule {
              options.source = any;
              options.text = any;
            }
          );
        };
        environment.systemPackages = mkOption {
          default = [ ];
          type = types.listOf types.unspecified;
        };
        users.groups = mkOption {
          default = { };
          type = types.attrsOf types.attrs;
        };
        boot.kernelModules = mkOption {
          default = [ ];
          type = types.listOf types.str;
        };
        boot.kernelPackages = mkOption {
          type = types.attrs;
          default.kernel.version = "6.12.30";
        };
        networking.nftables = {
          enable = mkOption {
            type = types.bool;
            default = false;
          };
          flushRuleset = mkOption {
            type = types.bool;
            default = false;
          };
          tables = mkOption {
            default = { };
            type = types.attrsOf (
              types.submodule {
                options.family = mkOption { type = types.str; };
                options.content = mkOption { type = types.lines; };
              }
            );
          };
        };
        systemd = {
          package = mkOption { default = "/systemd"; };
          globalEnvironment = mkOption { default = { }; };
          packages = mkOption { default = [ ]; };
          services = mkOption {
            default = { };
            type = utils.systemdUtils.types.services;
          };
        };
        nixpkgs.overlays = mkOption {
          default = [ ];
          type = types.listOf types.unspecified;
        };
        # What an example may set beside flowctl, and no test looks at.
        networking.hostName = any;
        networking.vlans = any;
        networking.wireguard = any;
        services.pppd = any;
      };
      # The real sysctl.nix asks for its file; NixOS makes it of the text.
      config.environment.etc."sysctl.d/60-nixos.conf".source = "/60-nixos.conf";
      config._module.args = {
        pkgs = lib.fix (lib.foldl' (lib.flip lib.extends) (_: pkgs) config.nixpkgs.overlays);
        inherit utils;
      };
    };

  evaluated =
    configuration:
    shimmed.evalModules {
      modules = [
        module
        stubs
        configuration
      ];
    };

in
{
  lib = shimmed;

  # The options with their descriptions.
  optionsOf = (evaluated { }).options;

  # Everything of a configuration that a test may compare or build.
  of =
    configuration:
    let
      inherit (evaluated configuration) config;
      cfg = config.services.flowctl;
      utils = import (nixos + "/lib/utils.nix") {
        inherit config pkgs;
        lib = shimmed;
      };
      unit = utils.systemdUtils.lib.serviceToUnit "flowctl" config.systemd.services.flowctl;
      hasUnit = config.systemd.services ? flowctl;
      etc = config.environment.etc."flowctl/flowctl.toml".source or null;
      inherit (config.networking.nftables) tables;
      # What is built has a name in the store that changes with the script that builds it.
      stable =
        text:
        builtins.unsafeDiscardStringContext (
          shimmed.concatStrings (
            map (part: if builtins.isList part then "/nix/store/" else part) (
              builtins.split "/nix/store/[a-z0-9]{32}-" text
            )
          )
        );
    in
    {
      inherit (cfg) settings;
      toml = toToml cfg.settings;
      unit = if hasUnit then stable unit.text else "";
      # With the true names of files.
      unitAsBuilt = if hasUnit then builtins.unsafeDiscardStringContext unit.text else "";
      wantedBy = if hasUnit then unit.wantedBy else [ ];
      # To be built: the file with its check, and the static rules.
      derivations = builtins.concatMap (text: builtins.attrNames (builtins.getContext text)) (
        shimmed.optional (etc != null) "${etc}" ++ map (table: table.content) (builtins.attrValues tables)
      );
      hasFile = etc != null;
      sysctls = shimmed.filterAttrs (
        name: _: shimmed.hasPrefix "net.netfilter" name
      ) config.boot.kernel.sysctl;
      inherit (config.boot) kernelModules;
      groups = shimmed.attrNames config.users.groups;
      packages = map (one: one.name) config.environment.systemPackages;
      assertions = map (one: one.message) (shimmed.filter (one: !one.assertion) config.assertions);
      inherit (config) warnings;
      tables = shimmed.mapAttrs (_: table: "${table.family}: ${stable table.content}") tables;
    };
}
