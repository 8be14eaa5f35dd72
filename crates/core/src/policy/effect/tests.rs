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
        ("net.fetch:**.github.com", "net.fetch:github.com", true),
        ("net.fetch:**.github.com", "net.fetch:a.b.github.com", true),
        ("net.fetch:**.github.com", "net.fetch:agithub.com", false),
        ("net.fetch:*.github.com", "net.fetch:a.b.github.com", false),
        ("net.fetch:**", "net.fetch:[::1]", true),
        ("net.fetch:*", "net.fetch:10.0.0.1", false),
        ("net.fetch:10.0.0.0/8", "net.fetch:10.1.2.3:80", true),
        ("net.fetch:10.0.0.0/8", "net.fetch:10.1.0.0/16", true),
        ("net.fetch:10.1.0.0/16", "net.fetch:10.0.0.0/8", false),
        ("net.fetch:10.1.*.*", "net.fetch:10.1.2.3", true),
        ("net.fetch:[::]/0", "net.fetch:10.1.2.3", false),
        ("fs.read:/srv/my files/**", "fs.read:/srv/my files/a b.txt", true),
        ("fs.read:/srv/x", "fs.read:/srv/X", false),
        ("fs.read:C:/work/**", "fs.read:c:/work/x", true),
        ("fs.read:/srv/caf\u{e9}/**", "fs.read:/srv/cafe\u{301}/x", true),
        ("fs.read:/**", "fs.read:C:/x", true),
        ("fs.read:/srv/**", "fs.read:C:/srv/x", false),
        ("proc.exec:rm", "proc.exec:/bin/rm", false),
        ("git.write:main", "git.write:refs/heads/main", false),
        ("git.write:feature/**", "git.write:feature/head-1", true),
        ("mail.send:*@x.org", "mail.send:boss@X.org.", true),
        ("mail.send:*@x.org", "mail.send:boss@y.x.org", false),
        ("mail.send:boss@*", "mail.send:boss@x.org", true),
        ("mail.send:*", "mail.send:boss@x.org", true),
        ("mail.send:boss@x.org", "mail.send:boss+a@x.org", false),
        ("net.fetch:10.0.0.0/8", "net.fetch:[2002:a00:1::1]", false),
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
        ("net.fetch:evil.com..", Malformed::ScopeSegment),
        ("net.fetch:.evil.com", Malformed::ScopeSegment),
        ("net.fetch:.", Malformed::ScopeSegment),
        ("net.fetch:evil%2ecom", Malformed::Host),
        ("net.fetch:evil.com/path", Malformed::Host),
        ("net.fetch:evil.com/24", Malformed::Host),
        ("net.fetch:xn--a-", Malformed::Host),
        ("net.fetch:010.0.0.1", Malformed::LeadingZero),
        ("net.fetch:0251.0376.0251.0376", Malformed::LeadingZero),
        ("net.fetch:1.2.3.4.5", Malformed::Address),
        ("net.fetch:1.2.3.256", Malformed::Address),
        ("net.fetch:256.1", Malformed::Address),
        ("net.fetch:4294967296", Malformed::Address),
        ("net.fetch:evil.1", Malformed::Address),
        ("net.fetch:10.**", Malformed::Address),
        ("net.fetch:*.0.0.1", Malformed::Address),
        ("net.fetch:10.*.0.*", Malformed::Address),
        ("net.fetch:10.0.0.1/8", Malformed::Network),
        ("net.fetch:10.0.0.0/33", Malformed::Network),
        ("net.fetch:[fd00::1/8]", Malformed::Network),
        ("net.fetch:[fd00::/8]/8", Malformed::Host),
        ("net.fetch:::1", Malformed::Host),
        ("net.fetch:[::1%lo]", Malformed::Host),
        ("net.fetch:[::1]80", Malformed::Host),
        ("net.fetch:evil.com:+22", Malformed::Host),
        ("fs.write:/srv/ x", Malformed::BlankAtEdge),
        ("fs.write:/srv/x\u{a0}/y", Malformed::BlankAtEdge),
        ("fs.write:/C:/x", Malformed::Path),
        ("fs.write:/srv/\u{200b}x", Malformed::Invisible),
        ("fs.write:/srv/\u{202e}x", Malformed::Invisible),
        ("fs.write:/proc/self/root/etc", Malformed::Detour),
        ("fs.write:/proc/1/task/1/cwd/x", Malformed::Detour),
        ("fs.write:/proc/**", Malformed::Detour),
        ("fs.write:/dev/fd/3", Malformed::Detour),
        ("db.write: public.orders", Malformed::Blank),
        ("git.write:my branch", Malformed::Blank),
        ("proc.exec:rm -rf", Malformed::Blank),
        ("net.fetch:https://evil.com", Malformed::Host),
        ("net.fetch:user@evil.com", Malformed::Host),
        ("net.fetch:evil.com:99999", Malformed::Host),
        ("net.fetch:evil.com:", Malformed::Host),
        ("net.fetch:evil.com:0", Malformed::Host),
        ("net.fetch:[::1]:00", Malformed::Host),
        ("net.fetch:-", Malformed::Host),
        ("net.fetch:-evil.com", Malformed::Host),
        ("net.fetch:evil-.com", Malformed::Host),
        ("git.write:+main", Malformed::Ref),
        ("git.write:x:main", Malformed::Ref),
        ("git.write::main", Malformed::Ref),
        ("git.write:main^{}", Malformed::Ref),
        ("git.write:main~0", Malformed::Ref),
        ("git.write:main@{0}", Malformed::Ref),
        ("git.write:a..main", Malformed::Ref),
        ("git.write:HEAD", Malformed::Ref),
        ("git.write:head", Malformed::Ref),
        ("git.write:@", Malformed::Ref),
        ("git.write:origin/HEAD", Malformed::Ref),
        ("git.write:FETCH_HEAD", Malformed::Ref),
        ("git.write:-", Malformed::Ref),
        ("git.write:--mirror", Malformed::Ref),
        ("proc.exec:\"rm\"", Malformed::Program),
        ("proc.exec:'rm'", Malformed::Program),
        ("proc.exec:rm;ls", Malformed::Program),
        ("proc.exec:ls|rm", Malformed::Program),
        ("proc.exec:$(rm)", Malformed::Program),
        ("proc.exec:{rm,-rf}", Malformed::Program),
        ("proc.exec:r?m", Malformed::Program),
        ("proc.exec:/bin/ls;rm", Malformed::Program),
        ("proc.exec:/bin/`rm`", Malformed::Program),
        ("mail.send:a@x.org;b@x.org", Malformed::Mail),
        ("mail.send:a@x.org,b@x.org", Malformed::Mail),
        ("mail.send:\"boss\"@x.org", Malformed::Mail),
        ("mail.send:boss(a)@x.org", Malformed::Mail),
        ("mail.send:boss@x.org(a)", Malformed::Mail),
        ("mail.send:<boss@x.org>", Malformed::Mail),
        ("mail.send:mailto:boss@x.org", Malformed::Mail),
        ("mail.send:x.org!boss", Malformed::Mail),
        ("mail.send:boss%x.org@y.org", Malformed::Mail),
        ("mail.send:boss@[127.0.0.1]", Malformed::Mail),
        ("mail.send:boss", Malformed::Mail),
        ("mail.send:a..b@x.org", Malformed::Mail),
        ("mail.send:b*@x.org", Malformed::Mail),
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

    /// The same for hosts, whose wildcards may stand at the beginning; and a deny is never weaker than it stands.
    #[test]
    fn hosts_are_sets(a in any_host(), b in any_host(), c in "net\\.a:[ab](\\.[ab]){0,3}|net\\.a:10\\.0\\.0\\.[0-3]") {
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
        prop_assert!(c.is_concrete() && (a.covers(&c) || !a.overlaps(&c) || a.is_narrow()));
        let meant = a.clone().into_owned().widened();
        prop_assert!(!a.overlaps(&b) || meant.overlaps(&b), "{:?} {:?}", meant, b);
    }

    #[test]
    fn a_wide_rule_is_never_weaker(a in any_rule(), b in any_rule()) {
        let (exact, meant, b) = (rule(&a), rule(&a).into_owned().widened(), rule(&b));
        prop_assert!(!exact.overlaps(&b) || meant.overlaps(&b));
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

#[test]
fn one_host_has_one_form() {
    for (host, spellings) in [
        ("evil.com", &["EVIL.com", "evil.com.", "\u{ff45}vil.com", "evil\u{3002}com", "evil.com:"][..4]),
        (
            "b\u{fc}cher.example",
            &["xn--bcher-kva.example", "B\u{dc}CHER.example", "XN--BCHER-KVA.example", "bu\u{308}cher.example"],
        ),
        (
            "169.254.169.254",
            &[
                "2852039166",
                "0xa9fea9fe",
                "0xA9.0xfe.43518",
                "169.16689662",
                "[::ffff:169.254.169.254]",
                "[::ffff:a9fe:a9fe]",
                "[64:ff9b::169.254.169.254]",
                "[::ffff:0:169.254.169.254]",
                "[::169.254.169.254]",
                "169.254.169.254.",
                "169.254.169.254/32",
            ],
        ),
        ("[::1]", &["[0:0:0:0:0:0:0:1]", "[::0001]", "[::0.0.0.1]", "[::1/128]", "[::1]/128"]),
        ("[FD00::/8]", &["[fd00::]/8", "[fd00:0::/8]"]),
        ("10.0.0.0/8", &["10.*.*.*", "0xa.0.0.0/8", "[::ffff:10.0.0.0/104]"]),
        ("evil.com:443", &["evil.com:0443", "Evil.com.:443"]),
    ] {
        for spelling in spellings {
            let (a, b) = (format!("net.fetch:{host}"), format!("net.fetch:{spelling}"));
            assert_eq!(rule(&a), rule(&b), "{a} {b}");
        }
    }
}

/// What a deny of `r` does to a request for `e`.
fn denies(r: &str, e: &str) -> bool {
    let asked = effect(e);
    let spellings = asked.spellings(e).unwrap();
    let spellings = if spellings.is_empty() { vec![asked.into_owned()] } else { spellings };
    let deny = rule(r).into_owned().widened();
    spellings.iter().any(|spelling| deny.overlaps(spelling))
}

#[test]
fn a_deny_is_read_wide() {
    for (r, e, denied) in [
        ("fs.write:/etc/", "fs.write:/etc/passwd", true),
        ("fs.write:/etc", "fs.write:/etcetera", false),
        ("fs.write:/etc/*", "fs.write:/etc/ssh/key", true),
        ("fs.write:/srv/secret/**", "fs.write:/SRV/Secret/x", true),
        ("fs.write:/srv/secret/**", "fs.write:C:/srv/secret/x", true),
        ("fs.write:/srv/secret/**", "fs.write:/srv/%73ecret/x", true),
        ("fs.write:/srv/secret/**", "fs.write:/srv/%2573ecret/x", true),
        ("fs.write:/srv/secret/**", "fs.write:/srv%2fsecret/x", true),
        ("fs.write:/srv/*/x", "fs.write:/srv/a%2fb/x", true),
        ("fs.write:/srv/secret/**", "fs.write:/srv/secret./x", true),
        ("fs.write:/srv/secret/**", "fs.write:/srv/sec\u{200d}ret/x", true),
        ("fs.write:/srv/stra\u{df}e/**", "fs.write:/srv/STRASSE/x", true),
        ("fs.write:/srv/strasse/**", "fs.write:/srv/STRA\u{1e9e}E/x", true),
        ("fs.write:/srv/\u{3c2}/**", "fs.write:/srv/\u{3a3}/x", true),
        ("fs.write:/srv/k/**", "fs.write:/srv/\u{212a}/x", true),
        ("fs.write:/etc/**", "fs.write:/etc::$DATA", true),
        ("fs.write:/etc/**", "fs.write:/etc:x/y", true),
        ("fs.write:/etc/**", "fs.write:/etc%3ax/y", true),
        ("fs.write:/etc/passwd", "fs.write:/etc::$INDEX_ALLOCATION/passwd", true),
        ("fs.write:/etc/passwd", "fs.write:/ETC/passwd:x", true),
        ("fs.write:C:/etc/**", "fs.write:c:/etc:x", true),
        ("fs.write:/srv/12:30.log", "fs.write:/srv/12", false),
        ("fs.write:/srv/secret/**", "fs.write:/srv/secrets/x", false),
        ("fs.write:D:/**", "fs.write:C:/x", false),
        ("net.fetch:*", "net.fetch:bad.example", true),
        ("net.fetch:*", "net.fetch:10.0.0.1", true),
        ("net.fetch:*", "net.fetch:[::1]", true),
        ("net.fetch:*.*", "net.fetch:10.0.0.1", true),
        ("net.fetch:*.bad.example", "net.fetch:a.b.bad.example", true),
        ("net.fetch:*.bad.example", "net.fetch:bad.example", false),
        ("net.fetch:**.bad.example", "net.fetch:bad.example", true),
        ("net.fetch:bad.**", "net.fetch:bad.example.org", true),
        ("net.fetch:bad.*", "net.fetch:bad.co.uk", true),
        ("net.fetch:bad.*", "net.fetch:bad", false),
        ("net.fetch:*.bad.*", "net.fetch:a.b.bad.co.uk", true),
        ("net.fetch:169.254.169.254", "net.fetch:[2002:a9fe:a9fe::1]", true),
        ("net.fetch:169.254.169.254", "net.fetch:[2002:a9fe:a9ff::1]", false),
        ("net.fetch:169.254.0.0/16", "net.fetch:[2002:a9fe::]/32", true),
        ("net.fetch:169.254.0.0/16", "net.fetch:[2000::]/3", true),
        ("net.fetch:169.254.169.254", "net.fetch:[2001:0:4136:e378:8000:63bf:5601:5601]", true),
        ("net.fetch:169.254.169.254", "net.fetch:[2001:0:a9fe:a9fe::]", true),
        ("net.fetch:169.254.169.254", "net.fetch:[2001:db8::a9fe:a9fe]", false),
        ("net.fetch:169.254.169.254", "net.fetch:[64:ff9b:1::a9fe:a9fe]", true),
        ("net.fetch:169.254.169.254", "net.fetch:[64:ff9b:1:a9fe:a9:fe00::]", true),
        ("net.fetch:169.254.169.254", "net.fetch:[64:ff9b:1:5a9:fe:a9fe::]", true),
        ("net.fetch:169.254.169.254", "net.fetch:[64:ff9b:1:5:a9:fea9:fe00:0]", true),
        ("net.fetch:169.254.169.254", "net.fetch:[64:ff9b:1:5:a9:fea9:ff00:0]", false),
        ("net.fetch:169.254.169.254", "net.fetch:[64:ff9b::]/95", true),
        ("net.fetch:169.254.169.254", "net.fetch:[fe80::5efe:169.254.169.254]", true),
        ("net.fetch:169.254.169.254", "net.fetch:[fd00::200:5efe:a9fe:a9fe]", true),
        ("net.fetch:[2002::]/16", "net.fetch:169.254.169.254", false),
        ("net.fetch:10.0.0.1", "net.fetch:*.*.*.*", true),
        ("net.fetch:169.254.169.254", "net.fetch:169.254.0.0/16", true),
        ("net.fetch:[::]/0", "net.fetch:10.0.0.1", true),
        ("net.fetch:evil.com:443", "net.fetch:evil.com:80", false),
        ("proc.exec:rm", "proc.exec:/bin/rm", true),
        ("proc.exec:rm", "proc.exec:/opt/x/RM.exe", true),
        ("proc.exec:rm", "proc.exec:/bin/rm -rf", true),
        ("proc.exec:rm", "proc.exec:/bin/rmdir", false),
        ("proc.exec:cmd.exe", "proc.exec:C:/Windows/System32/cmd", true),
        ("proc.exec:*", "proc.exec:/bin/rm", true),
        ("proc.exec:**", "proc.exec:/bin/rm", true),
        ("proc.exec:/opt/x", "proc.exec:/opt/x/tool", true),
        ("git.write:main", "git.write:refs/heads/main", true),
        ("git.write:main", "git.write:origin/MAIN", true),
        ("git.write:*", "git.write:origin/main", true),
        ("git.write:main", "git.write:maintenance", false),
        ("mail.send:boss@x.org", "mail.send:BOSS@X.ORG", true),
        ("mail.send:boss@x.org", "mail.send:boss+a@x.org", true),
        ("mail.send:boss+a@x.org", "mail.send:boss@x.org", false),
        ("mail.send:boss@b\u{fc}cher.org", "mail.send:boss@xn--bcher-kva.org", true),
        ("mail.send:*", "mail.send:boss@x.org", true),
        ("git.write:refs/heads/main", "git.write:main", true),
        ("git.write:refs/heads/main", "git.write:heads/main", true),
        ("git.write:remotes/origin/main", "git.write:refs/remotes/origin/MAIN", true),
        ("git.write:refs/heads/**", "git.write:main", true),
        ("tool.run:*", "tool.run:a/b", true),
        ("db.*", "db.read.rows", true),
        ("db.write:*", "db.write", true),
    ] {
        assert_eq!(denies(r, e), denied, "{r} denies {e}");
    }
    for hidden in ["fs.write:/srv/%00", "fs.write:/srv/%ff", "fs.write:/srv/%2e%2e/%5cx"] {
        assert_eq!(effect(hidden).spellings(hidden), Err(Malformed::Encoded), "{hidden}");
    }
}

fn any_host() -> impl Strategy<Value = String> {
    let label = prop_oneof![4 => "[ab]", 1 => Just("*".to_owned())];
    let name = (prop::bool::weighted(0.2), prop::collection::vec(label, 1..4), prop::bool::weighted(0.2)).prop_map(
        |(lead, mut labels, any)| {
            if lead {
                labels.insert(0, "**".into());
            }
            if any {
                labels.push("**".into());
            }
            format!("net.a:{}", labels.join("."))
        },
    );
    let network = (0u32..4, 24u8..=32)
        .prop_map(|(host, length)| format!("net.a:10.0.0.{}/{length}", host >> (32 - length) << (32 - length)));
    prop_oneof![6 => name, 2 => network, 1 => Just("net.a:**".to_owned()), 1 => Just("net.a".to_owned())]
}
