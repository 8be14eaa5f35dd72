use super::*;
use proptest::prelude::*;

fn effect(text: &str) -> Effect<'_> {
    Effect::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
}
fn rule(text: &str) -> Effect<'_> {
    Effect::parse_rule(text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[test]
fn wildcards_cover_what_they_say() {
    for (r, e, covers) in [
        ("db.read", "db.read", true),
        ("db.read", "db.write", false),
        ("db.*", "db.read", true),
        ("db.*", "db.read.rows", false),
        ("db.**", "db.read.rows", true),
        ("db.**", "db", true),
        ("**", "anything.at.all", true),
        ("*.read", "fs.read", true),
        ("db.read", "db.read:public.orders", true),
        ("db.read:public.orders", "db.read", false),
        ("db.read:public.*", "db.read:public.orders", true),
        ("db.read:public.*", "db.read:orders", false),
        ("db.read:orders", "db.read:public.orders", true),
        ("fs.write:/srv/app/**", "fs.write:/srv/app/a/b", true),
        ("fs.write:/srv/app/**", "fs.write:/srv/app/../etc", false),
        ("fs.write:/srv/app/**", "fs.write:/srv/app/../app/x", true),
        ("fs.write:/srv/app/**", "fs.write:/srv/application/x", false),
        ("fs.write:/srv/app/**", "fs.write:/srv//app/./x", true),
        ("fs.write:/srv/*/log", "fs.write:/srv/a/log", true),
        ("fs.write:C:/work/**", "fs.write:C:/work/x", true),
        ("net.fetch:api.github.com", "net.fetch:api.github.com:443", true),
        ("net.fetch:api.github.com:443", "net.fetch:api.github.com", false),
        ("net.fetch:*.github.com", "net.fetch:api.github.com", true),
        ("net.fetch:*.github.com", "net.fetch:github.com", false),
        ("net.fetch:[::1]", "net.fetch:[::1]:80", true),
    ] {
        assert_eq!(rule(r).covers(&effect(e)), covers, "{r} covers {e}");
    }
}

#[test]
fn a_scoped_deny_meets_the_bare_effect_and_a_wider_scope() {
    for (r, e, overlaps) in [
        ("fs.write:/etc/**", "fs.write", true),
        ("fs.write:/etc/**", "fs.write:/**", true),
        ("fs.write:/etc/**", "fs.write:/*/passwd", true),
        ("fs.write:/etc/**", "fs.write:/srv/**", false),
        ("db.write:public.orders", "db.write:orders", true),
        ("net.fetch:evil.com:443", "net.fetch:evil.com", true),
        ("net.fetch:evil.com:443", "net.fetch:evil.com:80", false),
    ] {
        assert_eq!(rule(r).overlaps(&effect(e)), overlaps, "{r} overlaps {e}");
    }
}

#[test]
fn what_could_have_two_spellings_is_refused() {
    for (text, why) in [
        ("", Malformed::Empty),
        ("DB.read", Malformed::UpperCase),
        ("db.write:Public.Orders", Malformed::UpperCase),
        ("db.write:\"public\".orders", Malformed::Relation),
        ("db.write:a.b.c", Malformed::Relation),
        ("net.fetch:API.github.com", Malformed::UpperCase),
        ("net.fetch:evil.com.", Malformed::ScopeSegment),
        ("net.fetch:https://evil.com", Malformed::Host),
        ("net.fetch:user@evil.com", Malformed::Host),
        ("net.fetch:evil.com:99999", Malformed::Host),
        ("net.fetch:evil.com:", Malformed::Host),
        ("fs.write:etc/passwd", Malformed::RelativePath),
        ("fs.write:~/x", Malformed::RelativePath),
        ("fs.write:/srv\\..\\etc", Malformed::Path),
        ("fs.write:/srv/*/../x", Malformed::Path),
        ("git.write:../x", Malformed::Path),
        ("fs.write:/srv/**/x", Malformed::WildcardPlace),
        ("fs.write:/srv/a*", Malformed::WildcardPlace),
        ("fs.write:", Malformed::ScopeSegment),
        (" db.read", Malformed::Blank),
        ("db.read\n", Malformed::Blank),
        ("db..read", Malformed::Name),
        ("db.réad", Malformed::Name),
        ("db.*", Malformed::Wildcard),
    ] {
        assert_eq!(Effect::parse(text), Err(why), "{text:?}");
    }
    assert_eq!(Effect::parse_rule("*.write:/srv"), Err(Malformed::ScopeOfWildcard));
    assert_eq!(Effect::parse(&"a".repeat(MAX_EFFECT_BYTES + 1)), Err(Malformed::TooLong));
}

/// Small alphabets, so that random rules and effects meet often.
fn any_rule() -> impl Strategy<Value = String> {
    let name = prop::collection::vec(prop_oneof![4 => "[ab]", 1 => Just("*".to_owned())], 1..4);
    let tail = prop::bool::weighted(0.3);
    let path = prop::collection::vec(prop_oneof![4 => "[ab]", 1 => Just("*".to_owned())], 0..4);
    (name, tail, prop::option::of((path, prop::bool::weighted(0.4)))).prop_map(|(mut name, tail, scope)| {
        if tail {
            name.push("**".into());
        }
        let scoped = scope.filter(|_| name[0] != "*" && name[0] != "**");
        let mut text = name.join(".");
        if let Some((mut path, any)) = scoped {
            if any {
                path.push("**".into());
            }
            text.push_str(":/");
            text.push_str(&path.join("/"));
        }
        text
    })
}
fn any_concrete() -> impl Strategy<Value = String> {
    (prop::collection::vec("[ab]", 1..5), prop::option::of(prop::collection::vec("[ab]", 0..5))).prop_map(
        |(name, path)| {
            let mut text = name.join(".");
            if let Some(path) = path {
                text.push_str(":/");
                text.push_str(&path.join("/"));
            }
            text
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn covering_is_transitive_and_implies_overlap(a in any_rule(), b in any_rule(), c in any_concrete()) {
        let (a, b, c) = (rule(&a), rule(&b), effect(&c));
        prop_assert!(a.covers(&a));
        if a.covers(&b) {
            prop_assert!(a.overlaps(&b) && b.overlaps(&a));
            if b.covers(&c) {
                prop_assert!(a.covers(&c));
            }
        }
        prop_assert_eq!(a.overlaps(&b), b.overlaps(&a));
        if a.covers(&c) && b.covers(&c) {
            prop_assert!(a.overlaps(&b));
        }
    }

    /// No sequence of segments leads out of the directory a rule names.
    #[test]
    fn no_path_escapes_its_scope(parts in prop::collection::vec(prop_oneof![Just(".."), Just("."), Just(""), Just("a"), Just("app")], 0..12)) {
        let asked = format!("/srv/app/{}", parts.join("/"));
        let mut real: Vec<&str> = Vec::new();
        for part in asked.split('/') {
            match part { "" | "." => {}, ".." => { real.pop(); }, p => real.push(p) }
        }
        let inside = real.len() >= 2 && real[0] == "srv" && real[1] == "app";
        let asked = format!("fs.write:{asked}");
        let covered = rule("fs.write:/srv/app/**").covers(&effect(&asked));
        prop_assert_eq!(covered, inside);
    }

    #[test]
    fn parsing_never_panics(text in "\\PC{0,60}") {
        let _ = Effect::parse(&text);
        let _ = Effect::parse_rule(&text);
    }
}
