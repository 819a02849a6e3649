# What the tests compare with golden files, as text: everything that the configurations evaluate to, and what is wrong with
# those that are meant to be wrong.
{ test, configs }:
let
  inherit (test) lib;
  lines = text: lib.filter (line: line != "") (lib.splitString "\n" text);

  # JSON, an entry a line.
  pretty =
    indent: value:
    let
      inner = "${indent}  ";
      entries = lib.mapAttrsToList (
        name: one: "${inner}${builtins.toJSON name}: ${pretty inner one}"
      ) value;
    in
    if lib.isAttrs value && value != { } then
      "{\n${lib.concatStringsSep ",\n" entries}\n${indent}}"
    else
      builtins.toJSON value;

  listed = title: entries: map (entry: "${title} ${entry}") entries;
  assignments = lib.mapAttrsToList (name: value: "${name} = ${toString value}");
  all = lib.concatMapStrings (line: "${line}\n");

  around =
    one:
    listed "unit" (lines one.unit)
    ++ listed "wanted by" one.wantedBy
    ++ listed "sysctl" (assignments one.sysctls)
    ++ listed "module" one.kernelModules
    ++ listed "group" one.groups
    ++ listed "package" one.packages
    ++ listed "table" (assignments one.tables)
    ++ listed "assertion" one.assertions
    ++ listed "warning" one.warnings;

  # The others are told by their differences from this one.
  plainest = around (test.of configs.right.three-lines);

  described =
    name: configuration:
    let
      one = test.of configuration;
      here = around one;
    in
    "== ${name}\n"
    + "settings ${pretty "" one.settings}\n"
    + (
      if here == [ ] then
        "nothing around it\n"
      else
        all (listed "-" (lib.subtractLists here plainest))
        + all (listed "+" (lib.subtractLists plainest here))
    );

  # What of the unit is another with another configuration, by key: all but X-Reload-Triggers restarts it.
  changed =
    from: to:
    let
      unitOf = name: lines (test.of configs.right.${name}).unitAsBuilt;
    in
    toString (
      map (line: lib.head (lib.splitString "=" line)) (lib.subtractLists (unitOf from) (unitOf to))
    );

  # Options that are not keys of the file.
  aroundKeys = [
    "allowOverlappingSubnets"
    "checkConfig"
    "configFile"
    "enable"
    "package"
    "settings"
  ];
  optionNames = map (option: lib.removePrefix "services.flowctl." option.name) (
    lib.filter (option: !option.internal && lib.hasPrefix "services.flowctl." option.name) (
      lib.optionAttrSetToDocList test.optionsOf
    )
  );
  keys = lib.filter (name: !(lib.elem name aroundKeys)) optionNames;
  # Whether `settings` has something at that path, by any name where it says <name>.
  has =
    settings: path:
    path == [ ]
    ||
      lib.isAttrs settings
      && (
        if lib.head path == "<name>" then
          lib.any (one: has one (lib.tail path)) (lib.attrValues settings)
        else
          settings ? ${lib.head path} && has settings.${lib.head path} (lib.tail path)
      );
  everything = (test.of configs.right.every-option).settings;
in
{
  # The keys of the file, as the options have them.
  keys = lib.concatStrings (map (name: "${name}\n") keys);
  # Those that the configuration every-option does not set.
  notSet = lib.filter (name: !(has everything (lib.splitString "." name))) keys;

  right =
    "Everything around the settings of three-lines:\n"
    + all plainest
    + "\nOther lines of the unit\n"
    + "with other settings: ${changed "three-lines" "home-router"}\n"
    + "with other settings beside those of the table: ${changed "flush-without-protection" "settings"}\n"
    + "with another table: ${changed "three-lines" "flush-without-protection"}\n"
    + "with another name of it: ${changed "flush-without-protection" "renamed-table"}\n"
    + "\nThe settings of each, and where the rest differs from that:\n"
    + lib.concatStringsSep "\n" (lib.mapAttrsToList described configs.right);
  asserted = lib.concatStringsSep "\n" (
    lib.mapAttrsToList (
      name: configuration: "== ${name}\n" + all (listed "assertion" (test.of configuration).assertions)
    ) configs.asserted
  );
}
