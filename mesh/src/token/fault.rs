//! What is wrong with a token: one line with rule and fix, and never the token itself.

use super::Purpose;
use std::fmt;

/// Why a text is no token. None of these says anything of the text but where it is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Nothing, or blanks alone.
    #[error("token: is empty; write the whole token there, as it was printed")]
    Missing,
    /// A character that no token has.
    #[error("token: has {kind} at character {at}; copy it again as plain text, as it was printed")]
    Alphabet {
        /// From 1 on.
        at: usize,
        /// Which kind of character.
        kind: Stranger,
    },
    /// It begins as no token does.
    #[error(
        "token: must begin with hawser-node. or hawser-join.; copy the whole of what `hawser node-token` or `hawser invite` printed"
    )]
    Prefix,
    /// It is good for something else.
    #[error("token: is {}; must be {}", Told(got), Made(wanted))]
    Purpose {
        /// What is needed here.
        wanted: Purpose,
        /// What it says that it is for.
        got: Purpose,
    },
    /// It ends too early to be any.
    #[error("token: was cut off: has {length} characters; copy it whole, as it was printed")]
    Truncated {
        /// In characters.
        length: usize,
    },
    /// It is longer than any can be.
    #[error(
        "token: has {length} characters; must be at most {limit}; copy the token alone",
        limit = super::MAX_TEXT
    )]
    TooLong {
        /// In characters.
        length: usize,
    },
    /// A character is another, is missing, or is one too many.
    #[error("token: was changed or cut off on its way; copy it whole, as it was printed")]
    Checksum,
    /// It is whole, and its maker wrote what no token may say.
    #[error("token: {field}: {rule}; have it made again by a hub of this version")]
    Field {
        /// Which.
        field: &'static str,
        /// What it breaks.
        rule: String,
    },
    /// It is over, by the clock of whoever looks.
    #[error("token: ended {ago} s ago; have another made (or correct the clock of this machine)")]
    Expired {
        /// In seconds.
        ago: u64,
    },
}

impl TokenError {
    /// Its name in metrics, logs and tests.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Missing => "token_missing",
            Self::Alphabet { .. } => "token_alphabet",
            Self::Prefix => "token_prefix",
            Self::Purpose { .. } => "token_purpose",
            Self::Truncated { .. } => "token_truncated",
            Self::TooLong { .. } => "token_too_long",
            Self::Checksum => "token_checksum",
            Self::Field { .. } => "token_field",
            Self::Expired { .. } => "token_expired",
        }
    }
}

struct Told<'a>(&'a Purpose);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Purpose::Node => "for a node to enrol",
            Purpose::Cluster => "for a cluster to join",
        })
    }
}

struct Made<'a>(&'a Purpose);

impl fmt::Display for Made<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Purpose::Node => "for a node; have one made with `hawser node-token`",
            Purpose::Cluster => "for a cluster; have one made with `hawser invite`",
        })
    }
}

/// Characters that come into a token when it is copied through something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stranger {
    /// As word processors make of quotes.
    TypographicQuote,
    /// As word processors make of hyphens.
    TypographicDash,
    /// `'`, `"` or a backtick.
    Quote,
    /// A blank or a tab.
    Blank,
    /// A line break.
    LineBreak,
    /// It is not seen: of no width, a byte order mark, or the like.
    Invisible,
    /// `+`, `/` or `=`: of another base64.
    OtherBase64,
    /// Below U+0020, or U+007F.
    Control,
    /// Anything else in ASCII.
    Sign,
    /// Anything else.
    NotAscii,
}

impl Stranger {
    /// The kind of a character; nothing, if tokens have it.
    pub(super) fn of(c: char) -> Option<Self> {
        match c {
            'A'..='Z' | 'a'..='z' | '0'..='9' | '-' | '_' | '.' => None,
            '\u{2018}'..='\u{201f}' | '\u{00ab}' | '\u{00bb}' | '\u{2039}' | '\u{203a}' => {
                Some(Self::TypographicQuote)
            }
            '\u{2010}'..='\u{2015}' | '\u{2212}' => Some(Self::TypographicDash),
            '\'' | '"' | '`' => Some(Self::Quote),
            '\n' | '\r' | '\u{2028}' | '\u{2029}' => Some(Self::LineBreak),
            ' ' | '\t' | '\u{00a0}' => Some(Self::Blank),
            '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' | '\u{00ad}' => Some(Self::Invisible),
            '+' | '/' | '=' => Some(Self::OtherBase64),
            c if c.is_control() => Some(Self::Control),
            c if c.is_ascii() => Some(Self::Sign),
            _ => Some(Self::NotAscii),
        }
    }
}

impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TypographicQuote => "a typographic quote",
            Self::TypographicDash => "a typographic dash",
            Self::Quote => "a quote",
            Self::Blank => "a blank",
            Self::LineBreak => "a line break",
            Self::Invisible => "an invisible character",
            Self::OtherBase64 => "a '+', '/' or '=', which is of another base64",
            Self::Control => "a control character",
            Self::Sign => "a sign that no token has",
            Self::NotAscii => "a character that is not ASCII",
        })
    }
}
