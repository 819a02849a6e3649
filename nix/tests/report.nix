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
    + all (listed "-" (lib.subtractLists here plainest))
    + all (listed "+" (lib.subtractLists plainest here));
in
{
  right =
    "Everything around the settings of three-lines:\n"
    + all plainest
    + "\nThe settings of each, and where the rest differs from that:\n"
    + lib.concatStringsSep "\n" (lib.mapAttrsToList described configs.right);
  asserted = lib.concatStringsSep "\n" (
    lib.mapAttrsToList (
      name: configuration: "== ${name}\n" + all (listed "assertion" (test.of configuration).assertions)
    ) configs.asserted
  );
}
