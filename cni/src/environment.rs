//! What a runtime says by variables (SPEC, "Parameters").

use crate::attachment::{INTERFACE, WORD, broken};
use crate::{Code, Command, ContainerId, Error, InterfaceName, PodArgs};
use std::path::PathBuf;

/// The longest path that a runtime may name, in bytes: `PATH_MAX`.
const LONGEST_PATH: usize = 4096;

/// The variables of a call as they are, which nobody has checked yet. Other variables mean nothing here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// `CNI_COMMAND`.
    pub command: Option<String>,
    /// `CNI_CONTAINERID`.
    pub container_id: Option<String>,
    /// `CNI_NETNS`.
    pub netns: Option<String>,
    /// `CNI_IFNAME`.
    pub ifname: Option<String>,
    /// `CNI_ARGS`.
    pub args: Option<String>,
    /// `CNI_PATH`.
    pub path: Option<String>,
}

/// What is asked, with what it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Attach this.
    Add(Attachment),
    /// Detach this; it may be gone already.
    Del(Detachment),
    /// Look at this.
    Check(Attachment),
    /// Remove all that is not among those of the configuration.
    Gc,
    /// Would ADD work?
    Status,
    /// Which versions are spoken?
    Version,
}

/// An interface of a container that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The container.
    pub container_id: ContainerId,
    /// Its network namespace; somebody has yet to look whether it is one.
    pub netns: PathBuf,
    /// The interface in it.
    pub ifname: InterfaceName,
    /// What is known of its pod.
    pub args: PodArgs,
}

/// An interface of a container that may be gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detachment {
    /// The container.
    pub container_id: ContainerId,
    /// Its network namespace, if it still has one.
    pub netns: Option<PathBuf>,
    /// The interface in it.
    pub ifname: InterfaceName,
}

impl Environment {
    /// Checks what the command needs, and nothing else. `None`: there is no command, so somebody looks what this is.
    ///
    /// # Errors
    /// [`Code::InvalidEnvironment`]: all that is missing, or what breaks a rule.
    pub fn check(&self) -> Result<Option<Call>, Error> {
        let Some(name) = said(&self.command) else {
            return Ok(None);
        };
        let Some(command) = Command::from_name(name) else {
            let names = Command::ALL.map(Command::name).join(", ");
            let message = broken("CNI_COMMAND", name, &format!("must be one of {names}"));
            return Err(Error::new(Code::InvalidEnvironment, message));
        };
        self.check_missing(command)?;
        Ok(Some(match command {
            Command::Add => Call::Add(self.attachment()?),
            Command::Check => Call::Check(self.attachment()?),
            Command::Del => Call::Del(self.detachment()?),
            Command::Gc => Call::Gc,
            Command::Status => Call::Status,
            Command::Version => Call::Version,
        }))
    }

    fn check_missing(&self, command: Command) -> Result<(), Error> {
        let (id, netns, ifname) = (
            ("CNI_CONTAINERID", &self.container_id),
            ("CNI_NETNS", &self.netns),
            ("CNI_IFNAME", &self.ifname),
        );
        let needed: &[(&str, &Option<String>)] = match command {
            Command::Add | Command::Check => &[id, netns, ifname],
            Command::Del => &[id, ifname],
            // CNI_PATH is needed by who delegates alone, who will say so.
            Command::Gc | Command::Status | Command::Version => &[],
        };
        let missing = needed.iter().filter(|(_, value)| said(value).is_none());
        let missing: Vec<&str> = missing.map(|(name, _)| *name).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let are = if missing.len() == 1 { "is" } else { "are" };
        let message = format!("{} {are} required for {command}", missing.join(", "));
        Err(Error::new(Code::InvalidEnvironment, message))
    }

    fn attachment(&self) -> Result<Attachment, Error> {
        let Detachment {
            container_id,
            netns,
            ifname,
        } = self.detachment()?;
        Ok(Attachment {
            container_id,
            // It was not missing.
            netns: netns.unwrap_or_default(),
            ifname,
            args: PodArgs::parse(self.args.as_deref().unwrap_or_default())?,
        })
    }

    fn detachment(&self) -> Result<Detachment, Error> {
        let fault = |name: &str, value: &str, rule: &str| {
            Error::new(Code::InvalidEnvironment, broken(name, value, rule))
        };
        let id = said(&self.container_id).unwrap_or_default();
        let container_id = ContainerId::new(id);
        let ifname = said(&self.ifname).unwrap_or_default();
        let interface = InterfaceName::new(ifname);
        let netns = match said(&self.netns) {
            None => None,
            Some(path) if path.starts_with('/') && is_path(path) => Some(PathBuf::from(path)),
            Some(path) => {
                let rule = "must be a path from '/' of at most 4096 bytes";
                return Err(fault("CNI_NETNS", path, rule));
            }
        };
        Ok(Detachment {
            container_id: container_id.ok_or_else(|| fault("CNI_CONTAINERID", id, WORD))?,
            netns,
            ifname: interface.ok_or_else(|| fault("CNI_IFNAME", ifname, INTERFACE))?,
        })
    }

    /// Where plugins are, to whom something is delegated.
    ///
    /// # Errors
    /// [`Code::InvalidEnvironment`]: nowhere.
    pub fn plugin_folders(&self) -> Result<Vec<PathBuf>, Error> {
        let path = said(&self.path).unwrap_or_default();
        let folders = path
            .split(':')
            .filter(|folder| folder.starts_with('/') && is_path(folder));
        let folders: Vec<PathBuf> = folders.map(PathBuf::from).collect();
        if folders.is_empty() {
            let rule = "must name the folders of the plugins that are delegated to, from '/', with ':' between";
            return Err(Error::new(
                Code::InvalidEnvironment,
                broken("CNI_PATH", path, rule),
            ));
        }
        Ok(folders)
    }
}

/// A variable that is empty says nothing.
fn said(value: &Option<String>) -> Option<&str> {
    value.as_deref().filter(|value| !value.is_empty())
}

fn is_path(text: &str) -> bool {
    text.len() < LONGEST_PATH && !text.contains('\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(command: &str) -> Environment {
        let some = |text: &str| Some(text.to_owned());
        Environment {
            command: some(command),
            container_id: some("cnitool-77ab"),
            netns: some("/run/netns/pod"),
            ifname: some("eth0"),
            args: None,
            path: some("/opt/cni/bin:/usr/lib/cni"),
        }
    }

    fn refused(environment: &Environment) -> String {
        let error = environment.check().unwrap_err();
        assert_eq!(error.code, Code::InvalidEnvironment, "{error}");
        let line = error.to_string();
        assert!(!line.contains('\n'), "{line}");
        line
    }

    #[test]
    fn each_command_has_what_it_needs() {
        for command in Command::ALL {
            let call = environment(command.name()).check().unwrap().unwrap();
            let is_it = match call {
                Call::Add(_) => Command::Add,
                Call::Del(_) => Command::Del,
                Call::Check(_) => Command::Check,
                Call::Gc => Command::Gc,
                Call::Status => Command::Status,
                Call::Version => Command::Version,
            };
            assert_eq!(is_it, command);
        }
        assert_eq!(Environment::default().check(), Ok(None));
        let folders = environment("ADD").plugin_folders().unwrap();
        assert_eq!(
            folders,
            [PathBuf::from("/opt/cni/bin"), PathBuf::from("/usr/lib/cni")]
        );
    }

    #[test]
    fn all_that_is_missing_is_told_at_once() {
        let bare = |command: &str| Environment {
            command: Some(command.to_owned()),
            ..Environment::default()
        };
        for (command, told) in [
            (
                "ADD",
                Some("CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME are required for ADD"),
            ),
            (
                "CHECK",
                Some("CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME are required for CHECK"),
            ),
            (
                "DEL",
                Some("CNI_CONTAINERID, CNI_IFNAME are required for DEL"),
            ),
            ("GC", None),
            ("STATUS", None),
            ("VERSION", None),
        ] {
            let checked = bare(command).check().map(drop);
            assert_eq!(
                checked.map_err(|error| error.to_string()).err().as_deref(),
                told
            );
        }
        // Each alone; an empty one is as good as none.
        type Spoil = fn(&mut Environment) -> &mut Option<String>;
        let variables: [(Spoil, &str); 3] = [
            (|it| &mut it.container_id, "CNI_CONTAINERID"),
            (|it| &mut it.netns, "CNI_NETNS"),
            (|it| &mut it.ifname, "CNI_IFNAME"),
        ];
        for (variable, name) in variables {
            for missing in [None, Some(String::new())] {
                let mut it = environment("ADD");
                *variable(&mut it) = missing.clone();
                assert_eq!(refused(&it), format!("{name} is required for ADD"));
                let mut it = environment("DEL");
                *variable(&mut it) = missing;
                assert_eq!(it.check().is_ok(), name == "CNI_NETNS");
            }
        }
    }

    #[test]
    fn what_breaks_a_rule_is_told_with_variable_value_and_rule() {
        type Spoil = fn(&mut Environment, String);
        let cases: [(Spoil, String, &str); 12] = [
            (
                |it, to| it.command = Some(to),
                "FOO".to_owned(),
                "CNI_COMMAND \"FOO\": must be one of ADD, DEL",
            ),
            (
                |it, to| it.command = Some(to),
                "add".to_owned(),
                "CNI_COMMAND \"add\": must be",
            ),
            (
                |it, to| it.container_id = Some(to),
                "../../x".to_owned(),
                "CNI_CONTAINERID \"../../x\": must be 1 to 255 letters",
            ),
            (
                |it, to| it.container_id = Some(to),
                "a".repeat(10_000),
                "CNI_CONTAINERID \"aaaa",
            ),
            (
                |it, to| it.container_id = Some(to),
                "a\0b".to_owned(),
                "CNI_CONTAINERID \"a?b\"",
            ),
            (
                |it, to| it.container_id = Some(to),
                "größe".to_owned(),
                "CNI_CONTAINERID \"größe\"",
            ),
            (
                |it, to| it.ifname = Some(to),
                "abcdefghijklmnop".to_owned(),
                "CNI_IFNAME \"abcdefghijklmnop\": must have 1 to 15 bytes",
            ),
            (
                |it, to| it.ifname = Some(to),
                "a/b".to_owned(),
                "CNI_IFNAME \"a/b\"",
            ),
            (
                |it, to| it.ifname = Some(to),
                "lo".to_owned(),
                "CNI_IFNAME \"lo\"",
            ),
            (
                |it, to| it.netns = Some(to),
                "pod".to_owned(),
                "CNI_NETNS \"pod\": must be a path from '/'",
            ),
            (
                |it, to| it.netns = Some(to),
                format!("/{}", "a".repeat(5000)),
                "CNI_NETNS \"/aaaa",
            ),
            (
                |it, to| it.args = Some(to),
                "x".to_owned(),
                "CNI_ARGS \"x\": must be KEY=VALUE",
            ),
        ];
        for (spoil, value, told) in cases {
            let mut it = environment("ADD");
            spoil(&mut it, value);
            let line = refused(&it);
            assert!(line.starts_with(told) && line.len() < 300, "{line}");
        }
        // What detaches is not kept from it by what only attaching needs.
        let mut it = environment("DEL");
        it.args = Some("x".to_owned());
        assert!(it.check().is_ok());
        for path in ["", "bin", ":", "bin:lib"] {
            it.path = Some(path.to_owned());
            assert_eq!(
                it.plugin_folders().unwrap_err().code,
                Code::InvalidEnvironment
            );
        }
    }
}
