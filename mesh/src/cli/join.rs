//! `hawser join`: shows what both sides would let each other do, and joins the cluster that made a token.

use super::hub_socket::{AskError, HubSocket};
use super::invite::WishArgs;
use super::{Outcome, print};
use crate::hub::admin::{Request, TokenText};
use crate::io::pem_file::{Readers, text};
use crate::join::table::{Side, screen};
use crate::token::{MAX_TEXT, Purpose, Token};
use clap::Args;
use serde::Deserialize;
use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;
use zeroize::Zeroizing;

#[derive(Debug, Args)]
pub(super) struct JoinArgs {
    #[command(flatten)]
    hub: HubSocket,
    /// What `hawser invite` printed; `-` reads it from standard input, which other users of this machine do not see.
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    token: Option<TokenArg>,
    /// A file with it, for its owner alone.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    wishes: WishArgs,
    /// Agrees to what the other side offers, without a question.
    #[arg(long)]
    yes: bool,
}

/// Not shown by anything.
#[derive(Clone)]
struct TokenArg(Zeroizing<String>);

impl std::fmt::Debug for TokenArg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenArg(..)")
    }
}

impl From<String> for TokenArg {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

/// What a hub tells of both sides.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Looked {
    clusterset: String,
    ours: Side,
    theirs: Side,
    agreed: String,
}

pub(super) fn run(args: &JoinArgs) -> Outcome {
    let text = read(args)?;
    // What is wrong with the text needs no hub.
    Token::parse_for(Purpose::Cluster, &text).map_err(|error| AskError::Refused {
        text: error.to_string(),
        reason: error.name().to_owned(),
    })?;
    let token = TokenText(text);
    let terms = args.wishes.wishes();
    let look = Request::Look {
        token: token.clone(),
        terms: terms.clone(),
    };
    let looked: Looked = serde_json::from_value(args.hub.ask(&look, "looked")?)?;
    print(&screen(&looked.clusterset, &looked.ours, &looked.theirs))?;
    if !args.yes && !agreed(&looked.theirs.name)? {
        return Err("not agreed to; nothing changed".into());
    }
    let agreed = looked.agreed;
    let join = Request::Join {
        token,
        terms,
        agreed,
    };
    args.hub.ask(&join, "joined")?;
    print(&format!(
        "\n{} and {} are members of each other.\n",
        looked.ours.name, looked.theirs.name
    ))
}

fn read(args: &JoinArgs) -> Result<Zeroizing<String>, Box<dyn std::error::Error + Send + Sync>> {
    if let Some(path) = &args.file {
        let read = text(path, Readers::Owner);
        return Ok(read.map_err(|rule| format!("--file: {}: {rule}", path.display()))?);
    }
    match &args.token {
        Some(TokenArg(text)) if text.as_str() != "-" => Ok(text.clone()),
        Some(_) | None => {
            // Growing would leave copies of it behind; more than one token is none.
            let most = u64::try_from(MAX_TEXT)
                .unwrap_or(u64::MAX)
                .saturating_add(2);
            let mut text = Zeroizing::new(String::with_capacity(MAX_TEXT + 64));
            let mut stdin = io::stdin().lock().take(most);
            stdin
                .read_to_string(&mut text)
                .map_err(|error| format!("TOKEN: cannot be read from standard input: {error}"))?;
            Ok(text)
        }
    }
}

/// Asks who sits there.
fn agreed(other: &str) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err("--yes: is missing, and standard input is no terminal on which somebody could agree; look at what is above, then add it".into());
    }
    write!(
        io::stderr(),
        "\nLet {other} and this cluster take each other in? [y/N] "
    )?;
    let mut line = String::new();
    stdin.lock().read_line(&mut line)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}
