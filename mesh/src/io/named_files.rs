//! A folder with a file for each of many things, named after it. Replicas of a hub share it.

use super::folder::Folder;
use crate::hub::manifest::Content;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// The folder, and what stands of it. What a file said before it was broken, stands.
#[derive(Debug)]
pub(crate) struct NamedFiles<T> {
    folder: Folder,
    /// As it is called in the state directory.
    called: &'static str,
    ending: &'static str,
    values: BTreeMap<String, T>,
    /// What is wrong with a file, by name.
    faults: BTreeMap<String, String>,
}

impl<T: PartialEq> NamedFiles<T> {
    /// Files with this ending in a folder that people are told of by this name; nobody has looked at them yet.
    pub(crate) fn new(folder: Folder, called: &'static str, ending: &'static str) -> Self {
        Self {
            folder,
            called,
            ending,
            values: BTreeMap::new(),
            faults: BTreeMap::new(),
        }
    }

    /// Where they are.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Looks at them. Returns the names of those that came, changed, went or broke. `read`: by name and text.
    pub(crate) fn look(
        &mut self,
        read: impl Fn(&str, &str) -> Result<T, String>,
    ) -> io::Result<Vec<String>> {
        let look = self.folder.look(&[self.ending])?;
        let mut changed = Vec::new();
        let is_there = |name: &String| look.files.contains_key(&format!("{name}{}", self.ending));
        self.faults.retain(|name, _| is_there(name));
        self.values.retain(|name, _| {
            let stays = is_there(name);
            if !stays {
                changed.push(name.clone());
            }
            stays
        });
        for (file, content) in look.files {
            let name = file.strip_suffix(self.ending).unwrap_or(&file);
            let value = match content {
                Content::Unchanged => continue,
                Content::Unreadable(what) => Err(what),
                Content::Text(text) => read(name, &text),
            };
            match value {
                Ok(value) => {
                    self.faults.remove(name);
                    if self.values.get(name) != Some(&value) {
                        self.values.insert(name.to_owned(), value);
                        changed.push(name.to_owned());
                    }
                }
                Err(what) => {
                    if self.faults.get(name) != Some(&what) {
                        let file = format!("{}/{file}", self.called);
                        tracing::warn!(file, what, "file refused; what it said before, stands");
                        self.faults.insert(name.to_owned(), what);
                        changed.push(name.to_owned());
                    }
                }
            }
        }
        Ok(changed)
    }

    /// What a file says.
    pub(crate) fn get(&self, name: &str) -> Option<&T> {
        self.values.get(name)
    }

    /// The names of all that say something.
    pub(crate) fn names(&self) -> impl Iterator<Item = &String> {
        self.values.keys()
    }

    /// What is wrong with files, a line each: `FOLDER/NAME.ENDING: what`.
    pub(crate) fn complaints(&self) -> impl Iterator<Item = String> {
        let (folder, ending) = (self.called, self.ending);
        let faults = self.faults.iter();
        faults.map(move |(name, what)| format!("{folder}/{name}{ending}: {what}"))
    }

    /// Puts a text there; it is on the disk then. [`Self::look`] finds it.
    pub(crate) fn put(&self, name: &str, text: &str) -> io::Result<()> {
        self.folder
            .put_durably(&format!("{name}{}", self.ending), text)
    }

    /// Removes one, if it is there.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        self.folder.remove(&format!("{name}{}", self.ending))
    }
}
