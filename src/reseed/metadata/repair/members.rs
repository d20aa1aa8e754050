//! The rows of the cluster's servers.

use crate::mysql::quote;

use super::super::facts::Instance;
use super::super::group::NewMember;
use super::super::note::Note;
use super::json::{self, JsonChange};
use super::{Change, Draft, facts};

impl Draft<'_> {
    /// One row for each member: the row of its UUID, else the row of its address, else a new one.
    pub(super) fn members(&mut self, change: Change) {
        let rows: Vec<&Instance> = self
            .metadata
            .instances
            .iter()
            .filter(|instance| instance.cluster == self.cluster.id)
            .collect();
        let (rows, replicas): (Vec<&Instance>, Vec<&Instance>) =
            rows.into_iter().partition(|row| row.is_member());
        let placed = place(&rows, &self.group.members);
        for row in &rows {
            if !placed.iter().any(|(_, place)| same_row(*place, row)) {
                self.forget(row);
                let address = row.classic_address().unwrap_or(&row.name);
                self.change(format!("{address} is no member any more"));
            }
        }
        if change == Change::Formed {
            for row in replicas {
                self.forget(row);
                let address = row.classic_address().unwrap_or(&row.name).to_owned();
                self.change(format!("the read replica {address} is taken out"));
                self.notes.push(Note::ReadReplica { address });
            }
        }
        for (member, row) in placed {
            match row {
                Some(row) => self.correct(member, row),
                None => self.add(member),
            }
        }
    }

    fn forget(&mut self, row: &Instance) {
        let which = self.which(row);
        self.delete("instances", Some(&which));
    }

    fn correct(&mut self, member: &NewMember, row: &Instance) {
        let address = member.address.to_string();
        let mut fields = Vec::new();
        let is_other = !row.has_uuid(member.server_uuid);
        if is_other {
            let uuid = quote::string(&member.server_uuid.to_string());
            fields.push(format!("mysql_server_uuid = {uuid}"));
            self.change(format!("{address} is another server than before"));
        }
        if row.address.as_deref() != Some(&address) {
            fields.push(format!("address = {}", quote::string(&address)));
            let old = row.address.as_deref().unwrap_or(&row.name);
            self.change(format!("{address} instead of {old}"));
        }
        // A name that an operator gave stays.
        let was_address = Some(row.name.as_str()) == row.address.as_deref()
            || Some(row.name.as_str()) == row.classic_address();
        if was_address && row.name != address {
            fields.push(format!("instance_name = {}", quote::string(&address)));
        }
        let mut addresses = JsonChange::new("addresses", &row.addresses);
        addresses.text("mysqlClassic", &address);
        match x_address(member) {
            Some(x) => addresses.text("mysqlX", &x),
            None => addresses.remove("mysqlX"),
        };
        addresses.text("grLocal", &member.local_address);
        fields.extend(addresses.assignment());
        let mut attributes = JsonChange::new("attributes", &row.attributes);
        attributes.number("server_id", member.server_id);
        if let Some(account) = &self.group.recovery_account {
            attributes.text("recoveryAccountUser", &account.user);
            attributes.text("recoveryAccountHost", &account.host);
        }
        if is_other {
            attributes.remove("joinTime");
        }
        fields.extend(attributes.assignment());
        let which = self.which(row);
        self.update("instances", &fields, &which);
        if row.is_hidden() {
            self.notes.push(Note::Hidden { address });
        }
    }

    fn add(&mut self, member: &NewMember) {
        let address = quote::string(&member.address.to_string());
        let mut addresses = vec![
            ("mysqlClassic", address.clone()),
            ("grLocal", quote::string(&member.local_address)),
        ];
        if let Some(x) = x_address(member) {
            addresses.push(("mysqlX", quote::string(&x)));
        }
        let mut attributes = vec![("server_id", member.server_id.to_string())];
        if let Some(account) = &self.group.recovery_account {
            attributes.push(("recoveryAccountUser", quote::string(&account.user)));
            attributes.push(("recoveryAccountHost", quote::string(&account.host)));
        }
        self.statement(format!(
            "INSERT INTO {} (cluster_id, address, mysql_server_uuid, instance_name, addresses, attributes) \
             VALUES ({}, {address}, {}, {address}, {}, {})",
            facts::table("instances"),
            quote::string(&self.cluster.id),
            quote::string(&member.server_uuid.to_string()),
            json::object(&addresses),
            json::object(&attributes),
        ));
        self.change(format!("{} is a new member", member.address));
    }

    /// The row, by its whole key.
    fn which(&self, row: &Instance) -> String {
        format!(
            "instance_id = {} AND cluster_id = {}",
            row.id,
            quote::string(&self.cluster.id)
        )
    }
}

fn x_address(member: &NewMember) -> Option<String> {
    let mut address = member.address.clone();
    address.port = member.x_port?;
    Some(address.to_string())
}

/// Gives each member its row. UUIDs go before addresses, since a server may have moved to where
/// another one was.
fn place<'a, 'b>(
    rows: &[&'a Instance],
    members: &'b [NewMember],
) -> Vec<(&'b NewMember, Option<&'a Instance>)> {
    let mut free: Vec<&Instance> = rows.to_vec();
    let mut take = |fits: &dyn Fn(&Instance) -> bool| {
        let at = free.iter().position(|row| fits(row))?;
        Some(free.remove(at))
    };
    let mut placed: Vec<(&NewMember, Option<&Instance>)> = members
        .iter()
        .map(|member| (member, take(&|row| row.has_uuid(member.server_uuid))))
        .collect();
    for (member, row) in &mut placed {
        if row.is_none() {
            let address = member.address.to_string();
            *row = take(&|row| row.classic_address() == Some(&address));
        }
    }
    placed
}

fn same_row(place: Option<&Instance>, row: &Instance) -> bool {
    place.is_some_and(|place| place.id == row.id)
}
