//! A cluster of the lab as somebody else's place of connections: one that is up, or one that is
//! built for it and ends with this process.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use unmasq_lab::connect::{self, Connection, Surroundings};
use unmasq_lab::session::Session;
use unmasq_probe::Observation;

use super::place::{self, Running};
use super::{checked, isolate};

/// The cluster.
pub(crate) struct Through(Kind);

enum Kind {
    /// It is up.
    Running(Box<Running>),
    /// It is this process's own.
    Own(Box<Session>),
}

impl Through {
    /// The one of that name, or built from that scenario.
    pub(crate) fn open(scenario: &str, say: &(dyn Fn(&str) + Sync)) -> anyhow::Result<Through> {
        if let Some(running) = place::running(Some(scenario))? {
            return Ok(Through(Kind::Running(Box::new(running))));
        }
        let text = checked(scenario)?;
        isolate()?;
        Ok(Through(Kind::Own(Box::new(Session::up(&text, say)?))))
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        match &self.0 {
            Kind::Running(running) => &running.name,
            Kind::Own(session) => &session.cluster.scenario.name,
        }
    }

    /// Captures it as it is now.
    pub(crate) fn capture(&self) -> anyhow::Result<Kept> {
        let kept = Kept(place::folder()?.join(format!("verify-{}", std::process::id())));
        match &self.0 {
            Kind::Running(running) => drop(running.capture(&kept.0)?),
            Kind::Own(session) => unmasq_host::capture::write(&kept.0, &session.capture()?)?,
        }
        Ok(kept)
    }

    /// What is around it.
    pub(crate) fn surroundings(&self) -> anyhow::Result<Surroundings> {
        match &self.0 {
            Kind::Running(running) => running.surroundings(),
            Kind::Own(session) => Ok(Surroundings::of(&session.cluster)),
        }
    }

    /// Makes connections.
    pub(crate) fn connect(
        &self,
        wanted: &[Connection],
        say: &(dyn Fn(&str) + Sync),
    ) -> anyhow::Result<Vec<Observation>> {
        match &self.0 {
            Kind::Running(running) => running.connect(wanted, say),
            Kind::Own(session) => connect::connect(&session.cluster, wanted, say),
        }
        .context("making connections through the lab")
    }
}

/// A capture that is removed when it has been read.
pub(crate) struct Kept(PathBuf);

impl Kept {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // What stays is in a folder of this user's own.
        let _ = fs::remove_dir_all(&self.0);
    }
}
