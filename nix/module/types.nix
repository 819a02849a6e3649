# The types of values as the configuration file has them: a number without its unit, a device that cannot be or a prefix
# that is none is refused where it stands. Each description reads on from "is not of type" and says what would be right.
{ lib }:
let
  inherit (lib) types;
  prefixes = import ./prefix.nix { inherit lib; };

  described =
    description: type:
    type
    // {
      inherit description;
      descriptionClass = "conjunction";
    };
  matching = description: pattern: described description (types.strMatching pattern);
  checked = description: check: described description (types.addCheck types.str check);

  # With a unit behind it.
  quantity = unit: " *[0-9]+([.][0-9]+)? *(${unit}) *";
  # Its last part is a name.
  namesFile =
    text: builtins.match "(.*/)?[^/]+" text != null && builtins.match "(.*/)?[.][.]" text == null;
  # Printable and ASCII, but for * / and :
  inDevice = "[!-)+-.0-9;-~]";
  bits = "([kKmMgG]?[bB][iI][tT]|([kKmMgG][iI]?)?B)/[sS]";
  packets = "[kKmM]?[pP][pP][sS]";

  address =
    text:
    let
      prefix = prefixes.parse text;
    in
    prefix != null && !(lib.hasInfix "/" text);
in
rec {
  duration = matching ''duration with its unit, such as "100ms", "1s", "10m" or "1h"'' (
    quantity "ms|s|m|h"
  );

  bitRate = matching ''bit rate with its unit, such as "500Mbit/s"'' (quantity bits);

  level = matching ''rate with its unit, such as "40Mbit/s" or "20kpps", or percentage of the counter's capacity, such as "80%"'' (
    quantity "${bits}|${packets}|%"
  );

  percentage = matching ''percentage, such as "5%"'' (quantity "%");

  size = matching ''size with its unit, such as "16MiB"'' (quantity "([kKmMgG][iI]?)?B");

  # Names of what is referred to: what they are checked against is in checks.nix.
  name = matching "name of a to z, 0 to 9 and _, with a letter first, at most 64 characters" "[a-z][a-z0-9_]{0,63}";

  tableName = matching "name of a table: letters, digits and _, no digit first, at most 64 characters" "[a-zA-Z_][a-zA-Z0-9_]{0,63}";

  device =
    checked
      ''device of at most 15 characters such as "eth0", or "ppp*" for all whose names begin so; not "lo"''
      (
        text:
        builtins.match "${inDevice}{1,15}|${inDevice}{1,14}[*]" text != null
        && !(lib.elem text [
          "lo"
          "."
          ".."
        ])
      );

  prefix = checked ''prefix such as "192.168.1.0/24" or "fd00:1::/64", or address'' (
    text: prefixes.parse text != null
  );

  # A subnet's name or a prefix.
  addresses = checked ''name of a subnet, prefix such as "192.168.1.0/24", or address'' (
    text: name.check text || prefixes.parse text != null
  );

  station =
    checked ''address such as "192.168.1.5", or hardware address such as "02:00:5e:10:00:01"''
      (text: address text || builtins.match "([0-9a-fA-F]{1,2}[:-]){5}[0-9a-fA-F]{1,2}" text != null);

  existing = matching ''family, table and counter, such as "inet accounting wan_bytes_in"'' "[[:space:]]*(inet|ip|ip6|bridge|arp|netdev)([[:space:]]+[a-zA-Z0-9_./-]{1,255}){2}[[:space:]]*";

  absoluteFile = checked ''absolute path of a file, such as "/var/lib/misc/dnsmasq.leases"'' (
    text: lib.hasPrefix "/" text && namesFile text
  );

  file = checked "path of a file, relative to the state directory or absolute" namesFile;

  # One value, or a list of them as the file may have it.
  oneOrMore = type: types.either type (types.nonEmptyListOf type);
}
