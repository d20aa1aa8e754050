//! Stand-in until the snapshot's part lands.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Manifest {
    pub id: super::layout::SnapshotId,
    pub gtid_executed: crate::gtid::GtidSet,
    #[serde(with = "crate::clock::micros")]
    pub started: chrono::DateTime<chrono::Utc>,
    #[serde(with = "crate::clock::micros")]
    pub finished: chrono::DateTime<chrono::Utc>,
}
