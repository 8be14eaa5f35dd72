//! Why a text is not an effect.

use thiserror::Error;

/// Longest accepted effect or rule, in bytes.
pub const MAX_EFFECT_BYTES: usize = 1024;

/// Why a text is not a valid effect or rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Malformed {
    #[error("it is empty")]
    Empty,
    /// Over [`MAX_EFFECT_BYTES`].
    #[error("it is longer than {MAX_EFFECT_BYTES} bytes")]
    TooLong,
    /// White space outside of a path, or a control character.
    #[error("it contains white space or a control character")]
    Blank,
    /// White space at an end of a path's segment.
    #[error("a segment of its path begins or ends with white space")]
    BlankAtEdge,
    /// Zero width, bidirectional or the like.
    #[error("it contains a character that is not visible")]
    Invisible,
    /// Upper case where only lower case is allowed.
    #[error("it contains upper case")]
    UpperCase,
    /// A name segment that is empty or has a character outside `[a-z0-9_-]`.
    #[error("its name is not lower-case segments of a-z, 0-9, _ and - joined by dots")]
    Name,
    /// A wildcard in the name of a requested effect.
    #[error("its name contains a wildcard, and only a rule may have one there")]
    Wildcard,
    /// `**` elsewhere than last, or `*` mixed with other characters.
    #[error("`*` must be a whole segment and `**` the last one")]
    WildcardPlace,
    /// Something between dots or slashes is missing.
    #[error("its scope is empty or has an empty segment")]
    ScopeSegment,
    /// A scope behind a name whose first segment is a wildcard.
    #[error("a scope needs a name whose first segment is not a wildcard")]
    ScopeOfWildcard,
    /// A file system scope that does not start at a root.
    #[error("a file system scope must be an absolute path")]
    RelativePath,
    /// A backslash or a `..` that leads out of a relative scope.
    #[error("its path has a backslash, or .. leads above its start")]
    Path,
    /// Not `host[:port]`.
    #[error("a net scope must be a host name, an address or a range of addresses, with an optional port of 1 to 65535")]
    Host,
    /// Numbers that are not an IPv4 address.
    #[error("its host ends with a number but is not an IPv4 address")]
    Address,
    /// `010`, which is 8 or 10.
    #[error("a number of its address begins with zero, which some programs read as octal")]
    LeadingZero,
    /// `10.0.0.1/8`
    #[error("its range of addresses has a length beyond the address, or bits beyond the length")]
    Network,
    /// `/proc/self/root/etc`
    #[error("its path leads through a link of /proc or /dev to another place")]
    Detour,
    /// `%2a`
    #[error("its path is malformed once its percent signs are decoded")]
    Encoded,
    /// `HEAD`, `main~1`, `src:main`
    #[error("its git scope is not the name of one branch, tag or repository")]
    Ref,
    /// `rm;ls`
    #[error("its program has quotes, or characters that mean something to a shell")]
    Program,
    /// Not `local@domain`.
    #[error("a mail scope must be one address, local@domain, without quotes and comments")]
    Mail,
    /// More than `schema.relation`.
    #[error("a db scope must be relation or schema.relation")]
    Relation,
}

impl Malformed {
    /// What to write instead.
    pub fn hint(self) -> &'static str {
        match self {
            Malformed::RelativePath | Malformed::Path => {
                "Write an absolute path with forward slashes, for example fs.write:/srv/app/**."
            }
            Malformed::Detour => "Write the path of the file itself.",
            Malformed::Host | Malformed::Address | Malformed::LeadingZero | Malformed::Network => {
                "Write a host without scheme, user or path, for example net.fetch:api.github.com, net.fetch:**.github.com, \
                 net.fetch:10.0.0.0/8 or net.fetch:[fd00::/8]:443."
            }
            Malformed::Ref => {
                "Write its name alone, for example git.write:main: without +, ^, ~ and source:, and not HEAD or @, which name \
                 whatever is checked out."
            }
            Malformed::Program => "Write the program alone, for example proc.exec:git or proc.exec:/usr/bin/git.",
            Malformed::Mail => "Write one address, for example mail.send:boss@example.com or mail.send:*@example.com.",
            Malformed::Relation => "Write a relation, for example db.write:public.orders or db.write:public.*.",
            Malformed::UpperCase => "Write it in lower case; only a path or a host may have upper case.",
            Malformed::Blank => "Remove it: only a path may have blanks.",
            Malformed::BlankAtEdge | Malformed::Invisible => "Remove it: it cannot be seen.",
            _ => "An effect is name[:scope], for example db.read, net.*, fs.write:/srv/app/**.",
        }
    }
}
