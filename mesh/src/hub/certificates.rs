//! The hub's own certificate: brought in files, or issued by its own CA and renewed at half of its life.

use super::run::HubError;
use crate::config::hub_yaml::{HubConfig, TlsFiles};
use crate::enrol::renewal::{Need, Renewal, Validity};
use crate::io::ca_store::{OwnCa, take, take_or_make};
use crate::io::config_file::ConfigFile;
use crate::io::pem_file;
use crate::trust::{Credentials, Role, Trust};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How long a hub's own certificate lives where it issues it itself.
const LIFE: Duration = Duration::from_secs(86_400);

/// Where the certificate comes from.
#[derive(Debug)]
pub(super) enum Certificates {
    /// From files, which somebody renews.
    Brought([ConfigFile; 2]),
    /// From our own CA.
    Issued(Arc<OwnCa>, Renewal),
}

/// What a hub begins with.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) certificates: Certificates,
    pub(super) credentials: Credentials,
    pub(super) trust: Trust,
}

/// Takes what there is, and makes what is missing.
pub(super) fn begin(config: &HubConfig, now: SystemTime) -> Result<Begun, HubError> {
    if let Some(files) = &config.tls {
        let (credentials, trust) = brought(config, files)?;
        let files = [&files.certificate, &files.key].map(|path| ConfigFile::new(path));
        return Ok(Begun {
            certificates: Certificates::Brought(files),
            credentials,
            trust,
        });
    }
    let (clusterset, cluster) = (&config.clusterset, &config.cluster.name);
    let own = take_or_make(&config.state_directory, clusterset, cluster, now)?;
    if own.is_new {
        let folder = config.state_directory.join("ca");
        tracing::info!(folder = %folder.display(), "made the CA of the cluster; keep a copy of it");
    }
    let mut trust = Trust::new(clusterset.clone());
    let set = trust.set(cluster, &own.bundle());
    set.map_err(|_| HubError::Issue(crate::ca::IssueError::Ca))?;
    let (credentials, validity) = issue(config, &own, now)?;
    let renewal = Renewal::new(Some(validity), crate::lot::drawn());
    Ok(Begun {
        certificates: Certificates::Issued(Arc::new(own), renewal),
        credentials,
        trust,
    })
}

/// Checks what there is, and makes nothing.
pub(super) fn check(config: &HubConfig) -> Result<(), HubError> {
    match &config.tls {
        Some(files) => brought(config, files).map(drop),
        None if config.state_directory.join("ca").exists() => {
            take(
                &config.state_directory,
                &config.clusterset,
                &config.cluster.name,
            )?;
            Ok(())
        }
        // The first start makes it.
        None => Ok(()),
    }
}

impl Certificates {
    /// The CA that nodes' certificates are issued by.
    pub(super) fn own_ca(&self) -> Option<Arc<OwnCa>> {
        match self {
            Self::Brought(_) => None,
            Self::Issued(own, _) => Some(Arc::clone(own)),
        }
    }

    /// Takes the own CA as it is by now: whether another one signs.
    pub(super) fn set_own(&mut self, own: &Arc<OwnCa>) -> bool {
        match self {
            Self::Brought(_) => false,
            Self::Issued(before, _) => {
                let before = std::mem::replace(before, Arc::clone(own));
                before.pem != own.pem
            }
        }
    }

    /// The next certificate, if there is one or it is due.
    pub(super) fn next(
        &mut self,
        config: &HubConfig,
        even_if_same: bool,
        now: SystemTime,
    ) -> Option<Result<Credentials, HubError>> {
        match self {
            Self::Brought(files) => {
                let changed = files.each_mut().map(|file| file.has_changed());
                let files = config.tls.as_ref()?;
                let wanted = even_if_same || changed.contains(&true);
                wanted.then(|| brought(config, files).map(|(credentials, _)| credentials))
            }
            Self::Issued(own, renewal) => {
                let due = match renewal.need(now) {
                    Need::First | Need::Renew => true,
                    Need::Nothing(_) => even_if_same,
                };
                due.then(|| match issue(config, own, now) {
                    Ok((credentials, validity)) => {
                        renewal.handle_done(validity);
                        Ok(credentials)
                    }
                    Err(error) => {
                        renewal.handle_failed(now);
                        Err(error)
                    }
                })
            }
        }
    }
}

fn brought(config: &HubConfig, files: &TlsFiles) -> Result<(Credentials, Trust), HubError> {
    let fields = ("tls.certificate", "tls.key");
    let credentials = pem_file::credentials(&files.certificate, &files.key, fields)?;
    let id = credentials.id();
    let fits = id.cluster == config.cluster.name
        && matches!(id.role, Role::Hub(_))
        && credentials.clusterset() == config.clusterset;
    if !fits {
        return Err(HubError::Certificate {
            found: id.uri(credentials.clusterset()),
            cluster: config.cluster.name.clone(),
            clusterset: config.clusterset.clone(),
        });
    }
    let mut trust = Trust::new(config.clusterset.clone());
    pem_file::trust_ca(&mut trust, &config.cluster.name, &files.ca, "tls.ca")?;
    Ok((credentials, trust))
}

fn issue(
    config: &HubConfig,
    own: &OwnCa,
    now: SystemTime,
) -> Result<(Credentials, Validity), HubError> {
    let issued = own.ca.hub(&config.name, LIFE, now)?;
    let credentials = Credentials::from_pem(&issued.certificate, &issued.key)
        .map_err(|_| HubError::Issue(crate::ca::IssueError::Ca))?;
    // The certificate's key is new with each start. Peers of the process before are to be told that it is gone all the
    // same, and by this replica alone: nobody else may end its connections.
    let purpose = format!("stateless reset of {} at {}", config.name, config.listen);
    let credentials = credentials.with_reset(&own.secret_for(&purpose));
    let validity = Validity {
        made: now,
        ends: now + LIFE,
    };
    Ok((credentials, validity))
}
