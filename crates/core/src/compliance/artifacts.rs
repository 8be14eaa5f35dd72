//! Artifacts: the evidence for an item of a checklist.

use crate::error::{Code, Fault};
use crate::input::{invalid, optional, parse_choice, required, sha256};

/// Largest text of an artifact, in bytes.
pub const MAX_CONTENT: usize = 4 << 20;

const GENERATORS: [&str; 3] = ["agent", "user", "system"];

/// An artifact as a caller gives it.
#[derive(Debug, Clone, Copy, Default)]
pub struct ArtifactInput<'a> {
    pub artifact_type: Option<&'a str>,
    pub name: Option<&'a str>,
    pub content: Option<&'a str>,
    pub content_type: Option<&'a str>,
    /// Where it is stored, if not in the table.
    pub file_path: Option<&'a str>,
    /// Required for a file; must match when content is given.
    pub content_sha256: Option<&'a str>,
    pub size_bytes: Option<i64>,
    pub generated_by: Option<&'a str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact<'a> {
    pub artifact_type: &'a str,
    pub name: &'a str,
    pub content_type: Option<&'a str>,
    pub file_path: Option<&'a str>,
    pub generated_by: &'a str,
    pub content_sha256: String,
    pub size_bytes: i64,
}

impl<'a> ArtifactInput<'a> {
    /// Checks every member and computes the digest and size of content.
    pub fn check(&self) -> Result<Artifact<'a>, Fault> {
        let artifact_type = required("artifact_type", self.artifact_type, 50)?;
        let name = required("name", self.name, 500)?;
        let content_type = optional("content_type", self.content_type, 100)?;
        if content_type.is_some_and(|kind| !kind.contains('/')) {
            return Err(
                invalid("content_type must be a MIME type").hint("For example text/markdown or application/pdf.")
            );
        }
        let file_path = optional("file_path", self.file_path, 1000)?;
        let generated_by = parse_choice("actor_type", self.generated_by, &GENERATORS)?;
        let (content_sha256, size_bytes) = match (self.content, file_path) {
            (Some(content), _) => self.measure_content(content)?,
            (None, Some(_)) => self.declared_file()?,
            (None, None) => return Err(invalid("an artifact needs content or file_path")),
        };
        Ok(Artifact { artifact_type, name, content_type, file_path, generated_by, content_sha256, size_bytes })
    }

    fn measure_content(&self, content: &str) -> Result<(String, i64), Fault> {
        if content.len() > MAX_CONTENT {
            return Err(Fault::new(
                Code::ProgramLimitExceeded,
                format!("the content is larger than {MAX_CONTENT} bytes"),
            )
            .detail(format!("It has {} bytes.", content.len()))
            .hint("Keep it in a file and give file_path, content_sha256 and size_bytes."));
        }
        let (digest, size) = (sha256(content.as_bytes()), content.len() as i64);
        if self.content_sha256.is_some_and(|given| given != digest)
            || self.size_bytes.is_some_and(|given| given != size)
        {
            return Err(invalid("content_sha256 or size_bytes does not match the content")
                .detail(format!("The content has {digest} and {size} bytes.")));
        }
        Ok((digest, size))
    }

    fn declared_file(&self) -> Result<(String, i64), Fault> {
        let digest = required("content_sha256", self.content_sha256, 71)?;
        let size = self.size_bytes.ok_or_else(|| invalid("size_bytes must not be NULL"))?;
        let hex = digest.strip_prefix("sha256:").unwrap_or_default();
        if hex.len() != 64 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) || size < 0 {
            return Err(invalid("a file needs its digest as sha256:<64 hex digits> and its size"));
        }
        Ok((digest.to_owned(), size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: ArtifactInput<'_> = ArtifactInput {
        artifact_type: Some("document"),
        name: Some("plat"),
        content: Some("abc"),
        content_type: Some("text/plain"),
        file_path: None,
        content_sha256: None,
        size_bytes: None,
        generated_by: Some("agent"),
    };
    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn content_is_measured() {
        let artifact = TEXT.check().unwrap();
        assert_eq!((artifact.content_sha256.as_str(), artifact.size_bytes), (ABC, 3));
        assert!(ArtifactInput { content_sha256: Some(ABC), size_bytes: Some(3), ..TEXT }.check().is_ok());
        for wrong in
            [ArtifactInput { size_bytes: Some(4), ..TEXT }, ArtifactInput { content_sha256: Some("sha256:00"), ..TEXT }]
        {
            let fault = wrong.check().unwrap_err();
            assert_eq!(fault.message, "content_sha256 or size_bytes does not match the content");
        }
        let large = "x".repeat(MAX_CONTENT + 1);
        let fault = ArtifactInput { content: Some(&large), ..TEXT }.check().unwrap_err();
        assert_eq!(fault.code, Code::ProgramLimitExceeded);
    }

    #[test]
    fn a_file_needs_digest_and_size() {
        let file = ArtifactInput {
            content: None,
            file_path: Some("/a"),
            content_sha256: Some(ABC),
            size_bytes: Some(3),
            ..TEXT
        };
        assert_eq!(file.check().unwrap().content_sha256, ABC);
        let upper = ABC.to_uppercase();
        for bad in [
            ArtifactInput { content_sha256: None, ..file },
            ArtifactInput { size_bytes: None, ..file },
            ArtifactInput { size_bytes: Some(-1), ..file },
            ArtifactInput { content_sha256: Some("sha256:00"), ..file },
            ArtifactInput { content_sha256: Some(&ABC[7..]), ..file },
            ArtifactInput { content_sha256: Some(&upper), ..file },
            ArtifactInput { file_path: None, ..file },
        ] {
            assert_eq!(bad.check().unwrap_err().code, Code::InvalidParameterValue, "{bad:?}");
        }
    }

    #[test]
    fn words() {
        for bad in [
            ArtifactInput { artifact_type: Some(" "), ..TEXT },
            ArtifactInput { artifact_type: None, ..TEXT },
            ArtifactInput { name: Some(" "), ..TEXT },
            ArtifactInput { content_type: Some("text"), ..TEXT },
            ArtifactInput { generated_by: Some("nobody"), ..TEXT },
        ] {
            assert_eq!(bad.check().unwrap_err().code, Code::InvalidParameterValue, "{bad:?}");
        }
    }
}
