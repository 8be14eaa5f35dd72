//! Identity of a version.

use sha2::{Digest, Sha256};

/// A file of a version next to its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Path below the skill's directory.
    pub path: String,
    pub content: Vec<u8>,
}

impl File {
    /// SHA-256 of the bytes, in hexadecimal.
    pub fn sha256(&self) -> String {
        hex::encode(Sha256::digest(&self.content))
    }
}

/// Content hash, digest and version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// SHA-256 of the body.
    pub content_hash: String,
    /// SHA-256 of all that belongs to the version; the content hash where that is the body alone, as in skillscript SkillStore.
    pub digest: String,
}

impl Identity {
    /// Of a body and its files, in whatever order.
    pub fn of(body: &str, files: &[File]) -> Self {
        let content_hash = hex::encode(Sha256::digest(body));
        if files.is_empty() {
            return Identity { digest: content_hash.clone(), content_hash };
        }
        let mut files: Vec<_> = files.iter().collect();
        files.sort_by(|a, b| a.path.as_bytes().cmp(b.path.as_bytes()));
        let mut digest = Sha256::new();
        digest.update(format!("skill_system/files/v1\n{content_hash}\n"));
        for file in files {
            // A path has no control characters, so no line can pretend to be two.
            digest.update(format!("{} {} {}\n", file.sha256(), file.content.len(), file.path));
        }
        Identity { digest: hex::encode(digest.finalize()), content_hash }
    }

    /// The first 12 digits of the digest.
    pub fn version(&self) -> &str {
        &self.digest[..12]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_alone_is_its_hash_and_each_file_counts() {
        let alone = Identity::of("abc", &[]);
        assert_eq!(alone.digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!((alone.version(), &alone.content_hash), ("ba7816bf8f01", &alone.digest));
        let file = |path: &str, content: &str| File { path: path.into(), content: content.into() };
        let (a, b) = (file("references/a.md", "1"), file("scripts/b.sh", "2"));
        let both = Identity::of("abc", &[a.clone(), b.clone()]);
        assert_eq!(both, Identity::of("abc", &[b.clone(), a.clone()]));
        assert_eq!(both.content_hash, alone.content_hash);
        for other in
            [vec![a.clone()], vec![file("references/a.md", "x"), b.clone()], vec![file("references/c.md", "1"), b]]
        {
            assert_ne!(Identity::of("abc", &other).digest, both.digest);
        }
    }
}
