# Settings as TOML, for the tests: pkgs.formats.toml of nixpkgs needs a program that is not at hand. Strings of JSON are
# strings of TOML, and a table may be written in one line.
{ lib }:
let
  key = builtins.toJSON;
  inline =
    value:
    if lib.isAttrs value then
      "{ ${
        lib.concatStringsSep ", " (lib.mapAttrsToList (name: inner: "${key name} = ${inline inner}") value)
      } }"
    else if lib.isList value then
      "[ ${lib.concatMapStringsSep ", " inline value} ]"
    else
      builtins.toJSON value;
  line =
    prefix: name: value:
    "${prefix}${key name} = ${inline value}\n";
  section =
    name: value:
    if lib.isAttrs value then
      "\n[${key name}]\n${lib.concatStrings (lib.mapAttrsToList (line "") value)}"
    else
      "";
in
settings:
lib.concatStrings (
  lib.mapAttrsToList (name: value: if lib.isAttrs value then "" else line "" name value) settings
)
+ lib.concatStrings (lib.mapAttrsToList section settings)
