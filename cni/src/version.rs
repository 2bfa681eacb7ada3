//! Commands, and the versions of the specification that have them.

use crate::{Code, Error};
use serde_json::{Value, json};
use std::fmt;

/// What a runtime wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Command {
    /// Attach a container to the network.
    Add,
    /// Detach it.
    Del,
    /// Look whether it is attached as ADD left it.
    Check,
    /// Remove what belongs to no attachment that the runtime knows.
    Gc,
    /// Say whether ADD would work.
    Status,
    /// Say which versions are spoken.
    Version,
}

impl Command {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Add,
        Self::Del,
        Self::Check,
        Self::Gc,
        Self::Status,
        Self::Version,
    ];

    /// As in `CNI_COMMAND`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    /// The command of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|command| command.name() == name)
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A version of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpecVersion {
    /// The first with CHECK.
    V0_4_0,
    /// `ips[].version` is gone.
    V1_0_0,
    /// The first with GC and STATUS.
    V1_1_0,
}

impl SpecVersion {
    /// All that are spoken, the oldest first.
    pub const ALL: [Self; 3] = [Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];
    /// The newest.
    pub const NEWEST: Self = Self::V1_1_0;

    /// As in `cniVersion`.
    pub fn name(self) -> &'static str {
        match self {
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// The version of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.name() == name)
    }

    /// The version that a configuration or a result says.
    ///
    /// # Errors
    /// [`Code::IncompatibleVersion`].
    pub fn of(object: &Value) -> Result<Self, Error> {
        let said = match object.get("cniVersion") {
            None => "none".to_owned(),
            Some(Value::String(name)) => match Self::from_name(name) {
                Some(version) => return Ok(version),
                None => format!("{:?}", crate::json::short(name)),
            },
            Some(other) => crate::json::short(&other.to_string()),
        };
        let message = format!("cniVersion {said} is not supported");
        Err(Error::new(Code::IncompatibleVersion, message)
            .with_details(format!("must be one of {}", spoken())))
    }

    /// Whether it has this command.
    ///
    /// # Errors
    /// [`Code::IncompatibleVersion`].
    pub fn check(self, command: Command) -> Result<(), Error> {
        let since = match command {
            Command::Add | Command::Del | Command::Version => return Ok(()),
            Command::Check => Self::V0_4_0,
            Command::Gc | Command::Status => Self::V1_1_0,
        };
        if self >= since {
            return Ok(());
        }
        let message = format!("cniVersion {self} has no {command}");
        Err(Error::new(Code::IncompatibleVersion, message)
            .with_details(format!("must be {since} at least")))
    }
}

impl fmt::Display for SpecVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn spoken() -> String {
    SpecVersion::ALL.map(SpecVersion::name).join(", ")
}

/// The answer to VERSION.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionReport;

impl VersionReport {
    /// As it is written to standard output.
    pub fn to_json(self) -> Value {
        json!({
            "cniVersion": SpecVersion::NEWEST.name(),
            "supportedVersions": SpecVersion::ALL.map(SpecVersion::name),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_commands_have_their_names() {
        for version in SpecVersion::ALL {
            assert_eq!(SpecVersion::from_name(version.name()), Some(version));
            assert_eq!(
                SpecVersion::of(&json!({ "cniVersion": version.name() })),
                Ok(version)
            );
        }
        for command in Command::ALL {
            assert_eq!(Command::from_name(command.name()), Some(command));
        }
        let told = VersionReport.to_json();
        assert_eq!(told["cniVersion"], "1.1.0");
        assert_eq!(
            told["supportedVersions"],
            json!(["0.4.0", "1.0.0", "1.1.0"])
        );
    }

    #[test]
    fn a_version_that_is_not_spoken_is_refused_with_those_that_are() {
        for (said, shown) in [
            (json!({}), "cniVersion none"),
            (json!({ "cniVersion": "9.9" }), "cniVersion \"9.9\""),
            (json!({ "cniVersion": "0.3.1" }), "cniVersion \"0.3.1\""),
            (json!({ "cniVersion": 1 }), "cniVersion 1 "),
            (json!({ "cniVersion": "x\ny" }), "cniVersion \"x?y\""),
            (json!([]), "cniVersion none"),
        ] {
            let error = SpecVersion::of(&said).unwrap_err();
            assert_eq!(error.code, Code::IncompatibleVersion);
            assert!(error.message.starts_with(shown), "{error}");
            assert_eq!(error.details, "must be one of 0.4.0, 1.0.0, 1.1.0");
        }
    }

    #[test]
    fn a_version_has_the_commands_that_it_has() {
        for (version, has) in [
            (SpecVersion::V0_4_0, "ADD DEL CHECK VERSION"),
            (SpecVersion::V1_0_0, "ADD DEL CHECK VERSION"),
            (SpecVersion::V1_1_0, "ADD DEL CHECK GC STATUS VERSION"),
        ] {
            let commands = Command::ALL.into_iter();
            let commands = commands.filter(|command| version.check(*command).is_ok());
            let names: Vec<_> = commands.map(Command::name).collect();
            assert_eq!(names.join(" "), has);
        }
        let error = SpecVersion::V1_0_0.check(Command::Gc).unwrap_err();
        assert_eq!(error.code, Code::IncompatibleVersion);
        assert_eq!(
            error.to_string(),
            "cniVersion 1.0.0 has no GC: must be 1.1.0 at least"
        );
    }
}
