//! What stands of all files: of each the last content that was right.

use super::document::{Ground, split};
use super::{Object, ObjectKey};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How much later the second look is that a mass removal needs.
const SECOND_LOOK: Duration = Duration::from_secs(2);
/// Removals above this share of all objects, in percent, are a mass removal.
const MASS_PERCENT: usize = 30;
/// Fewer removals than this are none, whatever their share: small clusters are changed by hand.
const MASS_LEAST: usize = 10;

/// A folder as it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// By file name.
    pub files: BTreeMap<String, Content>,
}

/// What was found in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// It looks as it did before.
    Unchanged,
    /// It has this text.
    Text(String),
    /// It could not be read, for this reason.
    Unreadable(String),
}

/// Where an object is written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file's name.
    pub file: String,
    /// The first line of its document; 0: the file as a whole.
    pub line: u64,
}

/// What is wrong with a file: one line. What stood before, stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Where.
    pub place: Place,
    /// Field, value, rule and fix.
    pub what: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place.line {
            0 => write!(f, "{}: {}", self.place.file, self.what),
            line => write!(f, "{}: line {line}: {}", self.place.file, self.what),
        }
    }
}

/// What a look brought.
#[derive(Debug, Default)]
pub struct News {
    /// Objects that are new, different, or gone.
    pub changes: Vec<(ObjectKey, Option<Arc<Object>>)>,
    /// Complaints that were not made before.
    pub complaints: Vec<Complaint>,
    /// Files whose content stands from now on; `None`: gone.
    pub accepted: Vec<(String, Option<String>)>,
}

#[derive(Debug)]
struct Parsed {
    hash: u64,
    line: u64,
    object: Option<(ObjectKey, Arc<Object>)>,
}

impl Parsed {
    fn key(&self) -> Option<&ObjectKey> {
        self.object.as_ref().map(|(key, _)| key)
    }
}

#[derive(Debug, Default)]
struct File {
    documents: Vec<Parsed>,
    /// What is wrong with a newer content.
    complaint: Option<Complaint>,
}

/// A file's newer content, which does not stand yet. A file that is gone has no documents.
#[derive(Debug)]
struct Pending {
    text: Option<String>,
    documents: Vec<Parsed>,
}

/// A removal of many objects that waits for a second look.
#[derive(Debug)]
struct Held {
    lost: BTreeSet<ObjectKey>,
    due: Instant,
}

/// The objects of a folder of files.
///
/// A file that is wrong is refused as a whole, and its last right content stands. When many objects go at once, they
/// stay until a second look finds the same: a folder may be half written, or away for a moment. A folder without any
/// object is never believed.
#[derive(Debug)]
pub struct Catalog {
    ground: Ground,
    files: BTreeMap<String, File>,
    /// With the file that has it.
    objects: BTreeMap<ObjectKey, (String, Arc<Object>)>,
    pending: BTreeMap<String, Pending>,
    held: Option<Held>,
    empty: bool,
}

impl Catalog {
    /// Without any file.
    pub fn new(ground: Ground) -> Self {
        Self {
            ground,
            files: BTreeMap::new(),
            objects: BTreeMap::new(),
            pending: BTreeMap::new(),
            held: None,
            empty: false,
        }
    }

    /// Takes what stood when the process ended before, by file name.
    pub fn load(
        &mut self,
        accepted: BTreeMap<String, String>,
    ) -> Vec<(ObjectKey, Option<Arc<Object>>)> {
        let mut touched = BTreeSet::new();
        for (name, text) in accepted {
            if let Ok(documents) = self.parse(&name, &text) {
                self.put(&name, documents, &mut touched);
            }
        }
        self.now_of(&touched)
    }

    /// Where an object is written.
    pub fn place(&self, key: &ObjectKey) -> Option<Place> {
        let (file, _) = self.objects.get(key)?;
        let mut documents = self.files.get(file)?.documents.iter();
        let parsed = documents.find(|parsed| parsed.key() == Some(key))?;
        Some(Place {
            file: file.clone(),
            line: parsed.line,
        })
    }

    /// An object.
    pub fn get(&self, key: &ObjectKey) -> Option<&Arc<Object>> {
        Some(&self.objects.get(key)?.1)
    }

    /// All objects.
    pub fn objects(&self) -> impl Iterator<Item = (&ObjectKey, &Object)> {
        self.objects
            .iter()
            .map(|(key, (_, object))| (key, &**object))
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// All complaints about files that still hold.
    pub fn complaints(&self) -> impl Iterator<Item = &Complaint> {
        self.files
            .values()
            .filter_map(|file| file.complaint.as_ref())
    }

    /// When to look again although nothing was heard.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.held.as_ref().map(|held| held.due)
    }

    /// Takes a look at the folder.
    pub fn handle_look(&mut self, look: Look, now: Instant) -> News {
        let mut news = News::default();
        let gone = self
            .files
            .keys()
            .filter(|name| !look.files.contains_key(*name));
        for name in gone.cloned().collect::<Vec<_>>() {
            let (text, documents) = (None, Vec::new());
            self.pending.insert(name, Pending { text, documents });
        }
        for (name, content) in look.files {
            match content {
                Content::Unchanged => {
                    // It was away for a moment.
                    if self
                        .pending
                        .get(&name)
                        .is_some_and(|next| next.text.is_none())
                    {
                        self.pending.remove(&name);
                    }
                }
                Content::Unreadable(what) => {
                    self.pending.remove(&name);
                    let place = Place {
                        file: name,
                        line: 0,
                    };
                    self.complain(Complaint { place, what }, &mut news);
                }
                Content::Text(text) => match self.parse(&name, &text) {
                    Ok(documents) => {
                        let text = Some(text);
                        self.pending.insert(name, Pending { text, documents });
                    }
                    Err(complaint) => {
                        self.pending.remove(&name);
                        self.complain(complaint, &mut news);
                    }
                },
            }
        }
        self.settle(now, &mut news);
        news
    }

    /// Lets stand what may.
    fn settle(&mut self, now: Instant, news: &mut News) {
        self.refuse_twice(news);
        let lost = self.lost();
        let hold = self.must_hold(&lost, now, news);
        let mut touched = BTreeSet::new();
        let (waiting, ready): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|(name, _)| {
                let file = self.files.get(name);
                let mut keys = file.into_iter().flat_map(|file| &file.documents);
                let loses = keys.any(|old| old.key().is_some_and(|key| lost.contains(key)));
                let twice = file.and_then(|file| file.complaint.as_ref());
                (hold && loses) || twice.is_some_and(|complaint| complaint.what.contains(TWICE))
            });
        self.pending.extend(waiting);
        for (name, next) in ready {
            self.put(&name, next.documents, &mut touched);
            if next.text.is_none() {
                self.files.remove(&name);
            }
            news.accepted.push((name, next.text));
        }
        news.changes = self.now_of(&touched);
    }

    /// Complains of files with objects that another file has.
    fn refuse_twice(&mut self, news: &mut News) {
        let mut owners: BTreeMap<&ObjectKey, &str> = BTreeMap::new();
        let standing = |key: &ObjectKey| {
            let (file, _) = self.objects.get(key)?;
            (!self.pending.contains_key(file)).then_some(file.as_str())
        };
        let mut complaints = Vec::new();
        for (name, next) in &self.pending {
            let clash = next.documents.iter().find_map(|parsed| {
                let key = parsed.key()?;
                let other = owners.get(key).copied().or_else(|| standing(key))?;
                Some((parsed.line, format!("{key} {TWICE} {other}; remove one")))
            });
            if let Some((line, what)) = clash {
                let file = name.clone();
                let place = Place { file, line };
                complaints.push(Complaint { place, what });
                continue;
            }
            let keys = next.documents.iter().filter_map(Parsed::key);
            owners.extend(keys.map(|key| (key, name.as_str())));
        }
        for name in self.pending.keys() {
            if let Some(file) = self.files.get_mut(name) {
                let twice = file.complaint.as_ref();
                if twice.is_some_and(|complaint| complaint.what.contains(TWICE)) {
                    file.complaint = None;
                }
            }
        }
        for complaint in complaints {
            self.complain(complaint, news);
        }
    }

    /// The objects that would be gone with all that is pending.
    fn lost(&self) -> BTreeSet<ObjectKey> {
        let next = self.pending.values().flat_map(|next| &next.documents);
        let next: BTreeSet<&ObjectKey> = next.filter_map(Parsed::key).collect();
        let files = self.pending.keys().filter_map(|name| self.files.get(name));
        let before = files
            .flat_map(|file| &file.documents)
            .filter_map(Parsed::key);
        before.filter(|key| !next.contains(key)).cloned().collect()
    }

    fn must_hold(&mut self, lost: &BTreeSet<ObjectKey>, now: Instant, news: &mut News) -> bool {
        let all = self.objects.len();
        let next = self.pending.values().flat_map(|next| &next.documents);
        let everything = !lost.is_empty() && lost.len() == all && next.count() == 0;
        if everything && !self.empty {
            news.complaints.push(held_complaint(
                "source_empty",
                format!("no manifest is left of {all}; what stood before, stands"),
            ));
        }
        self.empty = everything;
        let mass = lost.len() >= MASS_LEAST && lost.len() * 100 > all * MASS_PERCENT;
        if everything || !mass {
            self.held = None;
            return everything;
        }
        match &self.held {
            Some(held) if held.lost == *lost => {
                let hold = now < held.due;
                if !hold {
                    self.held = None;
                }
                hold
            }
            Some(_) | None => {
                let what = format!("{} of {all} objects are gone; looked at again", lost.len());
                news.complaints.push(held_complaint("source_shrunk", what));
                self.held = Some(Held {
                    lost: lost.clone(),
                    due: now + SECOND_LOOK,
                });
                true
            }
        }
    }

    fn complain(&mut self, complaint: Complaint, news: &mut News) {
        let file = self.files.entry(complaint.place.file.clone()).or_default();
        if file.complaint.as_ref() != Some(&complaint) {
            file.complaint = Some(complaint.clone());
            news.complaints.push(complaint);
        }
    }

    fn parse(&self, name: &str, text: &str) -> Result<Vec<Parsed>, Complaint> {
        let known = self.files.get(name).map_or(&[][..], |file| &file.documents);
        let known: BTreeMap<u64, &Parsed> = known.iter().map(|old| (old.hash, old)).collect();
        let mut seen = BTreeSet::new();
        let mut documents = Vec::new();
        for document in split(text) {
            let complaint = |line, what| {
                let file = name.to_owned();
                let place = Place { file, line };
                Complaint { place, what }
            };
            let mut hasher = DefaultHasher::new();
            document.text.hash(&mut hasher);
            let hash = hasher.finish();
            let object = match known.get(&hash) {
                Some(old) => old.object.clone(),
                None => document
                    .parse(&self.ground)
                    .map_err(|wrong| complaint(wrong.line, wrong.what))?
                    .map(|(key, object)| (key, Arc::new(object))),
            };
            let line = document.line;
            if let Some((key, _)) = &object
                && !seen.insert(key.clone())
            {
                let what = format!("{key} is there twice; remove one");
                return Err(complaint(line, what));
            }
            documents.push(Parsed { hash, line, object });
        }
        Ok(documents)
    }

    /// Lets a file's content stand.
    fn put(&mut self, name: &str, documents: Vec<Parsed>, touched: &mut BTreeSet<ObjectKey>) {
        let file = self.files.entry(name.to_owned()).or_default();
        file.complaint = None;
        let old = std::mem::replace(&mut file.documents, documents);
        let mut before: BTreeSet<ObjectKey> = old.iter().filter_map(Parsed::key).cloned().collect();
        for (key, object) in file
            .documents
            .iter()
            .filter_map(|parsed| parsed.object.clone())
        {
            before.remove(&key);
            let had = self
                .objects
                .insert(key.clone(), (name.to_owned(), Arc::clone(&object)));
            if had.is_none_or(|(_, had)| had != object) {
                touched.insert(key);
            }
        }
        for key in before {
            // Another file may have it by now.
            if self.objects.get(&key).is_some_and(|(file, _)| file == name) {
                self.objects.remove(&key);
                touched.insert(key);
            }
        }
    }

    fn now_of(&self, touched: &BTreeSet<ObjectKey>) -> Vec<(ObjectKey, Option<Arc<Object>>)> {
        let now = |key: &ObjectKey| self.objects.get(key).map(|(_, object)| Arc::clone(object));
        touched.iter().map(|key| (key.clone(), now(key))).collect()
    }
}

/// How a complaint of two files with the same object reads.
const TWICE: &str = "is also in";

fn held_complaint(name: &str, what: String) -> Complaint {
    let file = name.to_owned();
    let place = Place { file, line: 0 };
    Complaint { place, what }
}

#[cfg(test)]
mod tests;
