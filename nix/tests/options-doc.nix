# docs/nixos-options.md, from the options themselves; an option without a description is an error.
{ test }:
let
  inherit (test) lib;
  documented = lib.filter (
    option: option.visible && !option.internal && lib.hasPrefix "services.flowctl." option.name
  ) (lib.optionAttrSetToDocList test.optionsOf);

  # Roles of the NixOS manual are none of plain Markdown.
  plain = lib.replaceStrings [ "{option}" ] [ "" ];
  value = one: if one ? text then one.text else builtins.toJSON one;

  described =
    option:
    let
      description = option.description or null;
      text =
        if description == null || description == "" then
          throw "${option.name} has no description"
        else
          plain (lib.removeSuffix "\n" description.text or description);
      block = title: content: "\n${title}:\n\n```nix\n${lib.removeSuffix "\n" content}\n```\n";
    in
    "## `${option.name}`\n\n${text}\n\nType: ${option.type}\n"
    + lib.optionalString (option ? default && value option.default != "null") (
      block "Default" (value option.default)
    )
    + lib.optionalString (option ? example) (block "Example" (value option.example));
in
''
  # Options of the NixOS module

  Made from `nix/module.nix` by `nix/tests/run --update`. [nixos.md](nixos.md) shows how to use them, and
  [configuration.md](configuration.md) says more about each key. An option that is not set leaves no key in the file.

''
+ lib.concatMapStringsSep "\n" described documented
