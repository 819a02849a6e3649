# What is wrong with the settings as a whole, told before anything is built: each message quotes the option and its value,
# and says what to write instead. Only what has the shape that the options demand is looked at; `flowctl check` knows the rest.
{ lib, settings }:
let
  prefixes = import ./prefix.nix { inherit lib; };

  isPlain = segment: builtins.match "[a-zA-Z_][a-zA-Z0-9_-]*" segment != null && segment != "in";
  quoted = text: ''"${text}"'';
  # The full name of an option, from its path below services.flowctl: a list, or text where no name may have a dot.
  option =
    path:
    let
      segments = if lib.isString path then lib.splitString "." path else path;
      written = segment: if isPlain segment then segment else quoted segment;
    in
    "services.flowctl.${lib.concatMapStringsSep "." written segments}";
  entry =
    section: name:
    option [
      section
      name
    ];
  says = path: value: "${option path} = ${quoted value}";

  allOf =
    section:
    let
      value = settings.${section} or { };
    in
    if lib.isAttrs value then value else { };
  namesOf = section: lib.attrNames (allOf section);
  sectionOf = section: lib.filterAttrs (_: lib.isAttrs) (allOf section);
  interfaces = sectionOf "interfaces";
  counters = sectionOf "counters";
  thresholds = sectionOf "thresholds";
  subnets = allOf "subnets";

  listOf = value: lib.filter lib.isString (if lib.isList value then value else [ value ]);
  problem = message: {
    assertion = false;
    inherit message;
  };

  letters = name: lib.sort lib.lessThan (lib.stringToCharacters name);
  # Two letters in the wrong order are one mistake.
  distance = a: b: if a != b && letters a == letters b then 1 else lib.strings.levenshtein a b;
  nearest =
    name: candidates:
    let
      enough = 1 + lib.stringLength name / 4;
      near = lib.filter (candidate: distance name candidate <= enough) candidates;
    in
    lib.findFirst (_: true) null (lib.sort (a: b: distance name a < distance name b) near);
  insteadOf =
    name: candidates: otherwise:
    let
      near = nearest name candidates;
    in
    if near != null then "Did you mean ${quoted near}?" else otherwise;

  # Every name that is given, with the longest that leaves room for the names of its counters.
  names =
    let
      of =
        section: what: longest:
        map (name: {
          inherit
            section
            what
            longest
            name
            ;
        }) (namesOf section);
    in
    of "interfaces" "an interface" 60
    ++ of "subnets" "a subnet" 59
    ++ of "counters" "a counter" 64
    ++ of "thresholds" "a threshold" 64;
  lowered = name: lib.concatStrings (map lowerOne (lib.stringToCharacters (lib.toLower name)));
  lowerOne = char: if builtins.match "[a-z0-9_]" char != null then char else "_";
  isName = longest: name: builtins.match "[a-z][a-z0-9_]{0,${toString (longest - 1)}}" name != null;
  misnamed =
    {
      section,
      what,
      longest,
      name,
    }:
    let
      better = lowered name;
      suggestion = lib.optionalString (isName longest better) " Write for example ${entry section better}.";
    in
    problem "${entry section name} has a name that ${what} cannot have: a to z first, then a to z, 0 to 9 and _, at most ${toString longest} characters.${suggestion}";

  # Where each counter is made, by its name: a list, of more than one place where it is made twice.
  placesByCounter =
    let
      makes = path: counter: { ${counter} = [ path ]; };
      pairs =
        section: endings:
        lib.concatMap (
          name:
          map (
            ending:
            makes [
              section
              name
            ] "${name}_${ending}"
          ) endings
        ) (namesOf section);
      declared = map (
        name:
        makes [
          "counters"
          name
        ] name
      ) (lib.attrNames counters);
    in
    lib.zipAttrsWith (_: lib.concatLists) (
      pairs "interfaces" [
        "in"
        "out"
      ]
      ++ pairs "subnets" [
        "from"
        "to"
      ]
      ++ declared
    );
  madeTwice =
    name: places:
    problem "${option (lib.last places)} has the name of a counter that ${option (lib.head places)} brings: ${quoted name}. Choose another name.";

  # Every name or prefix under `keys` of every counter, with its path.
  selected =
    keys:
    lib.concatLists (
      lib.mapAttrsToList (
        name: counter:
        lib.concatMap (
          key:
          map (value: {
            path = [
              "counters"
              name
              key
            ];
            inherit value;
          }) (lib.optionals (counter ? ${key}) (listOf counter.${key}))
        ) keys
      ) counters
    );

  undefinedIn =
    section:
    { path, value }:
    problem "${says path value} is not defined in ${option [ section ]}. ${
      insteadOf value (namesOf section) "Define ${entry section value}."
    }";
  undefinedInterfaces = map (undefinedIn "interfaces") (
    lib.filter ({ value, ... }: !(allOf "interfaces" ? ${value})) (selected [
      "in"
      "out"
    ])
  );
  addresses = selected [
    "from"
    "to"
  ];
  undefinedSubnets = map (undefinedIn "subnets") (
    lib.filter ({ value, ... }: !(prefixes.looksLikeOne value) && !(subnets ? ${value})) addresses
  );

  # Prefixes that are written out, with their paths.
  listedIn =
    name:
    map (value: {
      path = [
        "subnets"
        name
      ];
      inherit value;
    }) (listOf subnets.${name});
  listed = lib.concatMap listedIn (lib.attrNames subnets);
  parsed =
    entries:
    lib.filter ({ prefix, ... }: prefix != null) (
      map (entry: entry // { prefix = prefixes.parse entry.value; }) entries
    );
  hostBits =
    {
      path,
      value,
      prefix,
    }:
    problem "${says path value} has host bits set. Write ${quoted (prefixes.network prefix)} for the network, or ${quoted (lib.head (lib.splitString "/" value))} for the one host.";

  selectsNothing = lib.mapAttrsToList (
    name: _:
    problem "${entry "counters" name} selects nothing. Set at least one of \"in\", out, from and to, or existing."
  ) (lib.filterAttrs (_: counter: counter == { }) counters);

  # Which capacities a percentage of `counter` is taken of; [ ] where it selects no link.
  linksOf =
    counter:
    let
      place = lib.head placesByCounter.${counter};
      section = lib.head place;
      name = lib.last place;
      of =
        direction:
        map (interface: {
          inherit interface direction;
        });
      declared = counters.${name};
    in
    if section == "interfaces" then
      of (lib.removePrefix "${name}_" counter) [ name ]
    else if section == "subnets" then
      [ ]
    else if declared ? out then
      of "out" (listOf declared.out)
    else
      of "in" (listOf (declared."in" or [ ]));
  lacksCapacity =
    { interface, direction }:
    let
      capacity = (interfaces.${interface} or { }).capacity or { };
    in
    interfaces ? ${interface} && !(lib.isString capacity || capacity ? ${direction});

  thresholdProblems =
    name: threshold:
    let
      at = key: [
        "thresholds"
        name
        key
      ];
      counter = threshold.counter or null;
      known = placesByCounter ? ${counter};
      links = linksOf counter;
      missing = lib.filter lacksCapacity links;
      keys = lib.concatMapStringsSep " and " (
        { interface, direction }:
        option [
          "interfaces"
          interface
          "capacity"
          direction
        ]
      ) missing;
      percentages =
        lib.filter (key: lib.isString (threshold.${key} or null) && lib.hasSuffix "%" threshold.${key})
          [
            "raise"
            "clear"
          ];
      existing = counters.${counter} or { };
    in
    lib.optional (lib.isString counter && !known) (
      problem "${says (at "counter") counter} is not a counter. ${
        insteadOf counter (lib.attrNames placesByCounter)
          "Define ${entry "counters" counter}, or use one that an interface (NAME_in, NAME_out) or a subnet (NAME_from, NAME_to) brings."
      }"
    )
    ++ lib.optionals (lib.isString counter && known) (
      map (
        key:
        problem "${says (at key) threshold.${key}} is a percentage, but ${quoted counter} ${
          if links == [ ] then
            "selects no interface and so has no capacity. Write a rate such as \"40Mbit/s\"."
          else
            "has no known capacity. Set ${keys}, or write a rate such as \"40Mbit/s\"."
        }"
      ) (lib.optionals (links == [ ] || missing != [ ]) percentages)
      ++ lib.optional (lib.attrNames existing == [ "existing" ] && threshold.drilldown or true) (
        problem "${says (at "counter") counter} is a counter of others that says nothing of its flows. Set \"in\", out, from or to beside ${entry "counters" counter}.existing, or ${option (at "drilldown")} = false."
      )
    );
in
{
  inherit option says;

  problems =
    map misnamed (lib.filter ({ longest, name, ... }: !(isName longest name)) names)
    ++ lib.attrValues (
      lib.mapAttrs madeTwice (lib.filterAttrs (_: places: lib.length places > 1) placesByCounter)
    )
    ++ undefinedInterfaces
    ++ undefinedSubnets
    ++ map hostBits (
      lib.filter ({ prefix, ... }: prefixes.hasHostBits prefix) (parsed (listed ++ addresses))
    )
    ++ selectsNothing
    ++ lib.concatLists (lib.mapAttrsToList thresholdProblems thresholds);

  # A problem for each subnet that static rules cannot have.
  followed = lib.mapAttrsToList (
    name: _:
    problem "${entry "subnets" name}.device follows a device, whose prefixes change, and static rules cannot. Write the prefixes, or leave ${option "table.static"} out."
  ) (sectionOf "subnets");

  # A problem for each prefix of one subnet that lies in one of another: every network around it is looked up, of each
  # length that there is.
  overlaps =
    let
      all = lib.filter ({ prefix, ... }: !(prefixes.hasHostBits prefix)) (parsed listed);
      byNetwork = lib.groupBy ({ prefix, ... }: prefixes.network prefix) all;
      lengths = lib.unique (map ({ prefix, ... }: prefix.length) all);
      around =
        { prefix, ... }:
        lib.concatMap (length: byNetwork.${prefixes.network (prefix // { inherit length; })} or [ ]) (
          lib.filter (length: length <= prefix.length) lengths
        );
      isOverlap =
        inner: outer:
        inner.path != outer.path
        # Of two that are the same, the second is told.
        && (outer.prefix != inner.prefix || lib.lessThan (lib.last outer.path) (lib.last inner.path));
      told =
        inner: outer:
        problem "${says inner.path inner.value} overlaps ${says outer.path outer.value}: what is in both counts in both. Change one of the two, or set ${option "allowOverlappingSubnets"} = true if that is meant.";
    in
    lib.concatMap (inner: map (told inner) (lib.filter (isOverlap inner) (around inner))) all;

  # [ { path, value, family, table } ] of the counters that others declare.
  existing = lib.concatMap (
    { path, value }:
    let
      words = builtins.match "[[:space:]]*([^[:space:]]+)[[:space:]]+([^[:space:]]+)[[:space:]].*" value;
    in
    lib.optional (words != null) {
      inherit path value;
      family = lib.elemAt words 0;
      table = lib.elemAt words 1;
    }
  ) (selected [ "existing" ]);
}
