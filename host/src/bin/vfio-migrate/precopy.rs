//! What `save` and `move` take for pre-copy.
//!
//! Deliberately absent: a guess. Without `--precopy` the devices are stopped for the whole of the transfer.

use std::time::Duration;

use vfio_migration_host::transfer::PreCopy;

#[derive(clap::Args)]
pub(crate) struct PreCopyArguments {
    /// Copy what can be copied while the devices work, from those that have PRE_COPY
    #[arg(long)]
    precopy: bool,
    /// How long the devices may stand still, by what is known before the stop; 300ms unless given
    #[arg(long, value_name = "TIME", requires = "precopy", value_parser = humantime::parse_duration)]
    max_downtime: Option<Duration>,
    /// How long to go on copying without a prospect of a stop that is short enough; 10s unless given
    #[arg(long, value_name = "TIME", requires = "precopy", value_parser = humantime::parse_duration)]
    patience: Option<Duration>,
}

impl PreCopyArguments {
    pub(crate) fn plan(&self) -> Option<PreCopy<'static>> {
        let default = PreCopy::default();
        self.precopy.then(|| PreCopy {
            downtime: self.max_downtime.unwrap_or(default.downtime),
            patience: self.patience.unwrap_or(default.patience),
            ..default
        })
    }
}
