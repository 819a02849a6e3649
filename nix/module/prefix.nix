# Reads IPv4 and IPv6 prefixes, tells whether they have host bits, and in which networks they are: the type of a prefix and
# the assertions about subnets need it before anything is built. What it does not take, flowctl would not take either.
{ lib }:
let
  octet = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";
  dotted = lib.concatStringsSep "[.]" (lib.genList (_: octet) 4);
  fromHex = digits: (builtins.fromTOML "value = 0x${digits}").value;
  isHex = group: builtins.match "[0-9a-fA-F]{1,4}" group != null;

  # "1.2.3.4" as [ 1 2 3 4 ]; null where it is none.
  octetsOf =
    text:
    let
      found = builtins.match dotted text;
    in
    if found == null then null else map lib.toInt found;

  # Groups of one side of "::" as numbers; at the end of the address, an IPv4 address may stand for the last two.
  groupsOf =
    isEnd: text:
    let
      parts = if text == "" then [ ] else lib.splitString ":" text;
      tail = if parts == [ ] || !isEnd then null else octetsOf (lib.last parts);
      plain = if tail == null then parts else lib.init parts;
      four = lib.optionals (tail != null) [
        (lib.elemAt tail 0 * 256 + lib.elemAt tail 1)
        (lib.elemAt tail 2 * 256 + lib.elemAt tail 3)
      ];
    in
    if lib.all isHex plain then map fromHex plain ++ four else null;

  hextetsOf =
    text:
    let
      texts = lib.splitString "::" text;
      sides = map (groupsOf false) (lib.init texts) ++ [ (groupsOf true (lib.last texts)) ];
      known = lib.length (lib.concatLists sides);
      zeros = lib.genList (_: 0) (8 - known);
    in
    if lib.elem null sides then
      null
    else if lib.length sides == 1 && known == 8 then
      lib.head sides
    else if lib.length sides == 2 && known < 8 then
      lib.head sides ++ zeros ++ lib.last sides
    else
      null;

  power = exponent: lib.foldl' (product: _: product * 2) 1 (lib.range 1 exponent);

  # The groups with every bit behind the first `length` bits cleared.
  masked =
    { groups, width, ... }:
    length:
    lib.imap0 (
      index: group:
      let
        kept = lib.max 0 (lib.min width (length - index * width));
        unit = power (width - kept);
      in
      group / unit * unit
    ) groups;

  withoutTrailingZeros =
    groups:
    if groups != [ ] && lib.last groups == 0 then withoutTrailingZeros (lib.init groups) else groups;

  hextets =
    groups:
    let
      written = lib.concatMapStringsSep ":" (group: lib.toLower (lib.toHexString group));
      shorter = withoutTrailingZeros groups;
    in
    if shorter == groups then written groups else "${written shorter}::";
in
rec {
  # { groups, width, length } of a prefix or an address; null where `text` is neither.
  parse =
    text:
    let
      parts = builtins.match "([^/]*)(/(0|[1-9][0-9]{0,2}))?" text;
      address = lib.elemAt parts 0;
      four = octetsOf address;
      six = hextetsOf address;
      is =
        groups: width:
        let
          longest = width * lib.length groups;
          length = if lib.elemAt parts 2 == null then longest else lib.toInt (lib.elemAt parts 2);
        in
        if length > longest then null else { inherit groups width length; };
    in
    if parts == null then
      null
    else if four != null then
      is four 8
    else if lib.hasInfix ":" address && six != null then
      is six 16
    else
      null;

  # Whether `text` is meant as an address or prefix: no name has these characters.
  looksLikeOne = text: builtins.match ".*[.:/].*" text != null;

  hasHostBits = prefix: masked prefix prefix.length != prefix.groups;

  # The network that a prefix is in, as text.
  network =
    prefix:
    let
      groups = masked prefix prefix.length;
      address = if prefix.width == 8 then lib.concatMapStringsSep "." toString groups else hextets groups;
    in
    "${address}/${toString prefix.length}";
}
