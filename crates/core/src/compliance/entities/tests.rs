use super::*;

fn field(key: &str, input: &str, required: bool) -> Field {
    Field {
        key: key.into(),
        label: key.to_uppercase(),
        input: InputType::parse(input),
        required,
        preset: None,
        options: vec![],
    }
}

fn well() -> EntityType {
    let api = TEXAS_PRESETS.iter().find(|preset| preset[0] == "api_well_number").unwrap();
    EntityType {
        key: "well".into(),
        name: "Well".into(),
        fields: vec![
            Field { preset: Some(Preset::new(api[1], api[2]).unwrap()), ..field("api", "text", true) },
            field("depth", "number", false),
            field("count", "integer", false),
            field("spud", "date", false),
            field("seen", "datetime", false),
            field("horizontal", "boolean", false),
            Field { options: vec![json!("oil"), json!("gas"), json!(3)], ..field("kind", "select", false) },
            Field { options: vec![json!("a"), json!("b")], ..field("tags", "multiselect", false) },
            field("extra", "json", false),
        ],
        relations: vec![
            Relation::of("lease".into(), "one_to_many", true, true),
            Relation::of("survey".into(), "one_to_many", true, false),
        ],
    }
}

fn codes(data: Value) -> Vec<(String, &'static str)> {
    well().validate(&data).unwrap().into_iter().map(|problem| (problem.field, problem.code)).collect()
}

fn good() -> Value {
    json!({"api": "42-501-20130", "relationships": {"lease": ["60481"]}})
}

fn with(key: &str, value: Value) -> Value {
    let mut data = good();
    data[key] = value;
    data
}

#[test]
fn what_is_wrong_is_named() {
    assert_eq!(codes(good()), []);
    assert_eq!(codes(json!({})), [("api".into(), "required"), ("relationships.lease".into(), "relationship_required")]);
    assert_eq!(codes(with("api", json!("42-501"))), [("api".into(), "invalid_format")]);
    assert_eq!(codes(with("api", json!(7))), [("api".into(), "wrong_type")]);
    assert_eq!(codes(with("depth", json!("deep"))), [("depth".into(), "wrong_type")]);
    assert_eq!(codes(with("count", json!(1.5))), [("count".into(), "wrong_type")]);
    assert_eq!(codes(with("count", json!(2.0))), []);
    assert_eq!(codes(with("spud", json!("2026-02-29"))), [("spud".into(), "wrong_type")]);
    assert_eq!(codes(with("spud", json!("2024-02-29"))), []);
    assert_eq!(codes(with("seen", json!("2024-02-29T23:59:59.5+05:30"))), []);
    for bad in [
        "2024-02-29",
        "2024-02-29T24:00:00Z",
        "2024-02-29T10:00:00",
        "2024-02-29T10:00:00.Z",
        "2024-02-29T10-00-00Z",
        "äää",
    ] {
        assert_eq!(codes(with("seen", json!(bad))), [("seen".into(), "wrong_type")], "{bad}");
    }
    assert_eq!(codes(with("kind", json!("coal"))), [("kind".into(), "not_an_option")]);
    assert_eq!(codes(with("kind", json!(3))), []);
    assert_eq!(codes(with("tags", json!(["a", "c"]))), [("tags".into(), "not_an_option")]);
    assert_eq!(codes(with("tags", json!(["a", "a"]))), [("tags".into(), "wrong_type")]);
    assert_eq!(codes(with("color", json!("red"))), [("color".into(), "unknown_field")]);
    assert_eq!(
        codes(with("relationships", json!({"lease": ["1", "2"]}))),
        [("relationships.lease".into(), "too_many_related")]
    );
    assert_eq!(
        codes(with("relationships", json!({"lease": ["1"], "survey": ["1", "2"], "dog": ["x"]}))),
        [("relationships.dog".into(), "relationship_not_allowed")]
    );
    assert_eq!(codes(with("relationships", json!({"lease": "1"}))), [("relationships.lease".into(), "wrong_type")]);
    assert_eq!(codes(with("relationships", json!([]))), [("relationships".into(), "wrong_type")]);
    assert!(well().validate(&json!([])).is_err());
}

#[test]
fn presets_match_their_examples_and_whole_values_only() {
    for [key, pattern, description, example] in PRESETS.into_iter().chain(TEXAS_PRESETS) {
        let preset = Preset::new(pattern, description).unwrap();
        assert!(preset.matches(example), "{key}");
        assert!(
            !preset.matches(&format!("{example}\n")) && !preset.matches(&format!(" {example}")) && !preset.matches(""),
            "{key}"
        );
    }
    assert!(
        Preset::new("(", "x").is_err()
            && Preset::new(&"(a{1000}){1000}".repeat(2), "x").is_err()
            && Preset::new(&"a".repeat(2000), "x").is_err()
    );
    // A group that is closed early must not escape the anchors.
    assert!(Preset::new("a)|(b", "x").is_err());
}

#[test]
fn a_slow_pattern_is_not() {
    let preset = Preset::new("(a|a)*b", "x").unwrap();
    assert!(!preset.matches(&"a".repeat(100_000)));
}

#[test]
fn import() {
    let mappings = [
        ("API_NO", "api"),
        ("TD", "depth"),
        ("SPUD", "spud"),
        ("HZ", "horizontal"),
        ("KIND", "kind"),
        ("GONE", "nowhere"),
    ];
    let mappings = mappings.into_iter().map(|(a, b)| (a.to_owned(), vec![b.to_owned()])).collect();
    let record = json!({"API_NO": " 4250120130 ", "TD": "08120.5", "SPUD": "01/31/2026", "HZ": "Y", "KIND": "3", "GONE": 1, "FREE": "x"});
    let (entity, unmapped, missing) = well().import(&mappings, &record).unwrap();
    assert_eq!(
        entity,
        json!({"api": "4250120130", "depth": 8120.5, "spud": "2026-01-31", "horizontal": true, "kind": 3})
    );
    assert_eq!(unmapped, json!({"GONE": 1, "FREE": "x"}));
    assert_eq!(missing, Vec::<String>::new());
    let (entity, _, missing) =
        well().import(&mappings, &json!({"TD": "inf", "SPUD": "20260230", "API_NO": "  "})).unwrap();
    assert_eq!(entity, json!({"depth": "inf", "spud": "20260230"}));
    assert_eq!(missing, ["api"]);
}
