//! What a plan does about InnoDB Cluster's metadata.

use uuid::Uuid;

use super::{Inputs, MetadataWish};
use crate::reseed::checks;
use crate::reseed::metadata::{Change, NewGroup, RecoveryAccount, Removal, Repair};
use crate::restore::checks::Reason;

/// What is done about InnoDB Cluster's metadata.
#[derive(Debug, Default)]
pub(super) struct OfMetadata {
    pub(super) what: String,
    pub(super) statements: Vec<String>,
    pub(super) notes: Vec<String>,
}

impl OfMetadata {
    /// Decides.
    pub(super) fn compute(
        inputs: &Inputs<'_>,
        name: Uuid,
        addresses: &[String],
    ) -> Result<Self, Reason> {
        let Some(metadata) = inputs.metadata else {
            return Ok(Self::default());
        };
        let all = std::iter::once(inputs.primary).chain(inputs.members);
        let group = NewGroup {
            name,
            members: all
                .zip(addresses)
                .map(|(state, local)| state.as_member(local))
                .collect(),
            recovery_account: Some(RecoveryAccount {
                user: inputs.account.user.clone(),
                host: "%".to_owned(),
            }),
            view_change_uuid: None,
        };
        Ok(match inputs.wishes.metadata {
        MetadataWish::Keep => Self {
            notes: vec![
                "InnoDB Cluster's metadata stay those of the old group (--metadata keep): no Router lets anybody \
                 through by them"
                    .to_owned(),
            ],
            ..Self::default()
        },
        MetadataWish::Drop => {
            let removal = Removal::compute(metadata, Some(&group), None);
            Self {
                what: "removes InnoDB Cluster's metadata".to_owned(),
                statements: vec![removal.statement],
                notes: vec![format!("for an InnoDB Cluster again, in MySQL Shell: {}", removal.adopt)],
            }
        }
        MetadataWish::Repair => {
            let repair = Repair::compute(metadata, &group, Change::Formed, None).map_err(|error| {
                checks::refused(
                    format!("{}: {error}", inputs.primary.facts.address),
                    "--metadata drop, which removes them, so that MySQL Shell can adopt the group; or --metadata \
                     keep",
                )
            })?;
            Self {
                what: format!("makes the metadata of the cluster {} match the group", repair.cluster),
                statements: repair.transaction().into_iter().map(ToOwned::to_owned).collect(),
                notes: repair.notes.iter().map(ToString::to_string).collect(),
            }
        }
    })
    }
}
