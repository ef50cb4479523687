use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::*;
use crate::ids::{Cursor, Epoch, GatewayId, Seq};
use crate::memory::MemoryRecords;
use crate::records::{Change, Table};

pub(crate) fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_790_000_000 + seconds, 0).unwrap()
}

pub(crate) fn gateway(organization: OrganizationId, name: &str, created: i64) -> Gateway {
    Gateway {
        id: GatewayId(Uuid::new_v4()),
        organization,
        name: name.into(),
        display_name: name.to_uppercase().into(),
        description: None,
        vhost: None,
        catch_up: CatchUp::Live,
        access: Access::default(),
        created_at: at(created),
        updated_at: at(created),
    }
}

pub(crate) fn token(gateway: GatewayId, number: u8, created: i64) -> Token {
    Token {
        id: TokenId(Uuid::new_v4()),
        gateway,
        hash: TokenHash([number; 32]),
        created_at: at(created),
        expires_at: None,
        revoked_at: None,
    }
}

/// Begins deployments and ends them with an event.
pub(crate) async fn tell(directory: &Directory, rows: Vec<Deployment>) {
    let ended = rows.iter().map(|row| (row.id, Some(told()))).collect();
    directory.begin_deployments(rows).await.unwrap();
    directory.end_deployments(ended, at(9)).await.unwrap();
}

fn told() -> Cursor {
    Cursor { epoch: Epoch(7), seq: Seq(42) }
}

pub(crate) fn deployment(api: &str, gateway: GatewayId) -> Deployment {
    Deployment {
        id: Uuid::new_v4(),
        api: api.parse().unwrap(),
        gateway,
        revision: "r1".to_owned(),
        vhost: "localhost".to_owned(),
        environment: "Default".to_owned(),
        status: DeploymentStatus::Deploying,
        event: Some(Cursor { epoch: Epoch(7), seq: Seq(42) }),
        performed_at: at(0),
        updated_at: at(0),
        pending: None,
        earlier: Vec::new(),
        deleted_at: None,
    }
}

pub(crate) fn organization() -> OrganizationId {
    OrganizationId(Uuid::new_v4())
}

async fn open() -> (Directory, Arc<MemoryRecords>) {
    let records = Arc::new(MemoryRecords::new());
    (Directory::open(Arc::clone(&records) as Arc<dyn Records>).await.unwrap(), records)
}

/// Everything that can be read of a directory, to compare with what a fresh one loads from the same records.
fn picture(directory: &Directory) -> String {
    let gateways = directory.gateways(None);
    let of_gateways: Vec<_> = gateways
        .iter()
        .map(|gateway| {
            let tokens = directory.tokens(gateway.id);
            let found: Vec<_> = tokens.iter().map(|token| directory.token_by_hash(&token.hash)).collect();
            (
                gateway,
                directory.gateways(Some(gateway.organization)),
                found,
                directory.deployments_of_gateway(gateway.id),
            )
        })
        .collect();
    format!("{of_gateways:?} {:?} {:?} {:?}", directory.apis(), directory.event_types(), directory.meta("a"))
}

#[tokio::test]
async fn a_reopened_directory_is_the_same() {
    let (directory, records) = open().await;
    let org = organization();
    let a = directory.create_gateway(gateway(org, "a", 2)).await.unwrap();
    let b = directory.create_gateway(gateway(org, "b", 1)).await.unwrap();
    directory.create_token(token(a.id, 1, 1), 2, at(1)).await.unwrap();
    let revoked = directory.create_token(token(b.id, 2, 1), 2, at(1)).await.unwrap();
    directory.revoke_token(b.id, revoked.id, at(2)).await.unwrap();
    tell(&directory, vec![deployment("api-1", a.id), deployment("api-1", b.id)]).await;
    let api = Api { id: "api-1".parse().unwrap(), revision: None, updated_at: at(3), size: 0 };
    directory.put_api(api, Bytes::from_static(b"openapi: 3")).await.unwrap();
    let kind = EventType {
        name: "api.deployed".to_owned(),
        description: None,
        schema: serde_json::json!({"type": "object"}),
        key_pointer: Some("/apiId".to_owned()),
        ends_key: true,
        created_at: at(1),
        updated_at: at(1),
    };
    directory.put_event_type(kind).await.unwrap();
    directory.put_meta("a", Bytes::from_static(b"1")).await.unwrap();

    let again = Directory::open(records).await.unwrap();
    assert_eq!(picture(&again), picture(&directory));
    assert_eq!(again.gateways(None), [Arc::clone(&b), Arc::clone(&a)], "sorted by creation");
    assert_eq!(again.api_artifact(&"api-1".parse().unwrap()).await.unwrap().unwrap(), "openapi: 3");
    assert_eq!(again.api(&"api-1".parse().unwrap()).unwrap().size, 10);
    assert_eq!(again.deployment(&"api-1".parse().unwrap(), a.id).unwrap().event.unwrap().to_string(), "00000007-42");
}

#[tokio::test]
async fn a_name_is_unique_in_its_organization_only() {
    let (directory, _) = open().await;
    let org = organization();
    let first = directory.create_gateway(gateway(org, "edge", 1)).await.unwrap();
    assert!(matches!(directory.create_gateway(gateway(org, "edge", 1)).await, Err(DirectoryError::NameTaken)));
    assert!(matches!(directory.create_gateway((*first).clone()).await, Err(DirectoryError::IdTaken)));
    directory.create_gateway(gateway(organization(), "edge", 1)).await.unwrap();
    assert!(directory.delete_gateway(first.id).await.unwrap());
    directory.create_gateway(gateway(org, "edge", 1)).await.unwrap();
}

#[tokio::test]
async fn an_update_keeps_what_never_changes() {
    let (directory, _) = open().await;
    let before = directory.create_gateway(gateway(organization(), "edge", 1)).await.unwrap();
    let update = GatewayUpdate {
        display_name: "Edge".into(),
        description: Some("new".into()),
        vhost: Some("edge.example".into()),
        catch_up: CatchUp::Stored,
        access: Access::default(),
    };
    let after = directory.update_gateway(before.id, update.clone(), at(9)).await.unwrap();
    assert_eq!((after.id, &after.name, after.created_at), (before.id, &before.name, before.created_at));
    assert_eq!((after.catch_up, after.updated_at), (CatchUp::Stored, at(9)));
    assert_eq!(directory.gateways(None), [after]);
    let missing = GatewayId(Uuid::new_v4());
    assert!(
        matches!(directory.update_gateway(missing, update, at(9)).await, Err(DirectoryError::NoSuchGateway(id)) if id == missing)
    );
}

#[tokio::test]
async fn deleting_a_gateway_takes_its_tokens_and_deployments_along() {
    let (directory, records) = open().await;
    let [gone, kept] = ["gone", "kept"].map(|name| gateway(organization(), name, 1));
    let (gone, kept) = (directory.create_gateway(gone).await.unwrap(), directory.create_gateway(kept).await.unwrap());
    for (of, number) in [(gone.id, 1), (gone.id, 2), (kept.id, 3)] {
        directory.create_token(token(of, number, 1), 2, at(1)).await.unwrap();
    }
    tell(&directory, vec![deployment("api-1", gone.id), deployment("api-1", kept.id)]).await;

    assert!(directory.delete_gateway(gone.id).await.unwrap());
    assert!(!directory.delete_gateway(gone.id).await.unwrap());

    assert_eq!(directory.token_by_hash(&TokenHash([1; 32])), None);
    assert!(directory.token_by_hash(&TokenHash([3; 32])).is_some());
    assert_eq!(directory.deployments_of_api(&"api-1".parse().unwrap()).len(), 1);
    for (table, rows) in [(Table::Gateways, 1), (Table::Tokens, 1), (Table::Deployments, 1)] {
        assert_eq!(records.scan(table).await.unwrap().len(), rows, "{table:?}");
    }
}

#[tokio::test]
async fn no_race_makes_more_active_tokens_than_allowed() {
    let (directory, _) = open().await;
    let directory = Arc::new(directory);
    let id = directory.create_gateway(gateway(organization(), "edge", 1)).await.unwrap().id;
    let tries = (0..16).map(|number| {
        let directory = Arc::clone(&directory);
        tokio::spawn(async move { directory.create_token(token(id, number, 1), 2, at(1)).await.is_ok() })
    });
    let mut made = 0;
    for attempt in tries.collect::<Vec<_>>() {
        made += usize::from(attempt.await.unwrap());
    }
    assert_eq!((made, directory.tokens(id).len()), (2, 2));
}

#[tokio::test]
async fn expired_and_revoked_tokens_make_room_and_are_bounded() {
    let (directory, records) = open().await;
    let id = directory.create_gateway(gateway(organization(), "edge", 1)).await.unwrap().id;
    let expiring = Token { expires_at: Some(at(10)), ..token(id, 200, 0) };
    directory.create_token(expiring.clone(), 1, at(1)).await.unwrap();
    assert_eq!((expiring.state(at(9)), expiring.state(at(10))), (TokenState::Active, TokenState::Expired));
    let refused = directory.create_token(token(id, 201, 1), 1, at(9)).await;
    assert!(matches!(refused, Err(DirectoryError::TooManyTokens { max: 1 })));

    for number in 0..50 {
        let created = i64::from(number) + 10;
        let made = directory.create_token(token(id, number, created), 1, at(created)).await.unwrap();
        let revoked = directory.revoke_token(id, made.id, at(created)).await.unwrap();
        assert_eq!(revoked.state(at(created)), TokenState::Revoked);
        let again = directory.revoke_token(id, made.id, at(created) + TimeDelta::days(1)).await.unwrap();
        assert_eq!(again.revoked_at, Some(at(created)), "the first revocation counts");
    }
    assert_eq!(directory.tokens(id).len(), INACTIVE_TOKENS_MAX);
    assert_eq!(records.scan(Table::Tokens).await.unwrap().len(), INACTIVE_TOKENS_MAX);
    assert!(directory.token_by_hash(&TokenHash([49; 32])).is_some(), "the newest are kept");
    assert_eq!(directory.token_by_hash(&TokenHash([0; 32])), None);
    let unknown = directory.revoke_token(id, TokenId(Uuid::new_v4()), at(99)).await;
    assert!(matches!(unknown, Err(DirectoryError::NotFound)));
}

#[tokio::test]
async fn deployments_are_put_all_or_none_and_deleted_with_their_api() {
    let (directory, _) = open().await;
    let id = directory.create_gateway(gateway(organization(), "edge", 1)).await.unwrap().id;
    let missing = GatewayId(Uuid::new_v4());
    let refused = directory.begin_deployments(vec![deployment("a", id), deployment("a", missing)]).await;
    assert!(matches!(refused, Err(DirectoryError::NoSuchGateway(id)) if id == missing));
    assert_eq!(directory.deployments_of_gateway(id), []);

    tell(&directory, vec![deployment("b", id), deployment("a", id)]).await;
    let deployed = Deployment { status: DeploymentStatus::Deployed, ..deployment("a", id) };
    tell(&directory, vec![deployed]).await;
    let of_gateway = directory.deployments_of_gateway(id);
    assert_eq!(of_gateway.iter().map(|row| row.api.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(of_gateway.first().unwrap().status, DeploymentStatus::Deployed);

    assert!(directory.delete_api("a".parse().unwrap(), at(10)).await.unwrap());
    assert!(!directory.delete_api("a".parse().unwrap(), at(10)).await.unwrap());
    assert_eq!(directory.deployments_of_api(&"a".parse().unwrap()), []);
    assert_eq!(directory.deployments_of_gateway(id).len(), 1);
}

#[test]
fn an_api_id_is_safe_in_a_path_and_in_a_file_name() {
    let longest = "x".repeat(128);
    for good in ["a", "A9._~-", longest.as_str(), "7b1c7f2e-4a55-4d0c-9f58-4e0a6a4c8f11"] {
        assert_eq!(good.parse::<ApiId>().unwrap().to_string(), good);
    }
    for bad in ["", ".", "..", "a/b", "a b", "ä", "a\n", "x".repeat(129).as_str()] {
        assert_eq!(bad.parse::<ApiId>(), Err(InvalidApiId), "{bad:?}");
        assert!(serde_json::from_value::<ApiId>(bad.into()).is_err());
    }
}

#[test]
fn a_token_hash_does_not_show_in_logs() {
    let shown = format!("{:?}", token(GatewayId(Uuid::nil()), 171, 0));
    // As a list or in hex; the id is random and may have a few of these digits.
    assert!(!shown.contains("171, 171") && !shown.contains("abababab"), "{shown}");
}

/// Records whose commits wait for a permit, and fail while told to.
#[derive(Default)]
struct GatedRecords {
    rows: MemoryRecords,
    failing: AtomicBool,
    entered: Option<Arc<Semaphore>>,
    permits: Option<Arc<Semaphore>>,
}

#[async_trait]
impl Records for GatedRecords {
    async fn some(&self, table: Table, after: Option<&[u8]>, max: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.rows.some(table, after, max).await
    }

    async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.rows.get(table, key).await
    }

    async fn commit(&self, changes: Vec<Change>, durability: Durability) -> Result<(), StoreError> {
        if let (Some(entered), Some(permits)) = (&self.entered, &self.permits) {
            entered.add_permits(1);
            permits.acquire().await.unwrap().forget();
        }
        if self.failing.load(Ordering::SeqCst) {
            return Err(StoreError::Poisoned);
        }
        self.rows.commit(changes, durability).await
    }
}

#[tokio::test]
async fn a_failed_commit_changes_nothing() {
    let records = Arc::new(GatedRecords::default());
    let directory = Directory::open(Arc::clone(&records) as Arc<dyn Records>).await.unwrap();
    let row = directory.create_gateway(gateway(organization(), "edge", 1)).await.unwrap();
    let before = picture(&directory);
    records.failing.store(true, Ordering::SeqCst);
    assert!(matches!(directory.delete_gateway(row.id).await, Err(DirectoryError::Store(StoreError::Poisoned))));
    assert!(directory.create_token(token(row.id, 1, 1), 2, at(1)).await.is_err());
    assert_eq!(picture(&directory), before);
    assert_eq!(picture(&Directory::open(records).await.unwrap()), before);
}

#[tokio::test]
async fn a_caller_that_goes_away_mid_commit_leaves_memory_and_disk_equal() {
    let (entered, permits) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let records = Arc::new(GatedRecords {
        entered: Some(Arc::clone(&entered)),
        permits: Some(Arc::clone(&permits)),
        ..GatedRecords::default()
    });
    let directory = Arc::new(Directory::open(Arc::clone(&records) as Arc<dyn Records>).await.unwrap());
    let row = gateway(organization(), "edge", 1);
    let caller = {
        let (directory, row) = (Arc::clone(&directory), row.clone());
        tokio::spawn(async move { directory.create_gateway(row).await })
    };
    entered.acquire().await.unwrap().forget();
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    permits.add_permits(2);
    // The next write comes after the abandoned one, so it also waits for it.
    assert!(matches!(directory.create_gateway(row.clone()).await, Err(DirectoryError::IdTaken)));
    assert!(directory.gateway(row.id).is_some());
    assert_eq!(picture(&directory), picture(&Directory::open(records).await.unwrap()));
}

#[tokio::test]
async fn a_deployment_that_ends_without_an_event_leaves_what_was_before() {
    let records = Arc::new(MemoryRecords::new());
    let directory = Directory::open(records.clone()).await.unwrap();
    let gateway = directory.create_gateway(gateway(OrganizationId(Uuid::new_v4()), "gw-1", 1)).await.unwrap().id;
    let first = deployment("a", gateway);
    directory.begin_deployments(vec![first.clone()]).await.unwrap();
    assert!(matches!(directory.begin_deployments(vec![first.clone()]).await, Err(DirectoryError::Unsettled)));
    directory.end_deployments(vec![(first.id, None)], at(2)).await.unwrap();
    assert_eq!(directory.deployment(&first.api, gateway), None);

    tell(&directory, vec![first.clone()]).await;
    let before = directory.deployment(&first.api, gateway).unwrap();
    let second = Deployment { id: Uuid::new_v4(), revision: "other".into(), ..first };
    directory.begin_deployments(vec![second.clone()]).await.unwrap();
    assert_eq!(directory.deployment(&second.api, gateway).unwrap().revision, "other");
    // As a crash leaves it.
    let directory = Directory::open(records).await.unwrap();
    assert_eq!(directory.pending_deployments().len(), 1);
    directory.end_deployments(vec![(second.id, None)], at(3)).await.unwrap();
    assert_eq!(directory.deployment(&second.api, gateway), Some(before));
    // Ended is ended.
    directory.end_deployments(vec![(second.id, Some(told()))], at(4)).await.unwrap();
    assert_eq!(directory.told_of_deployment(second.id), None);
}

#[tokio::test]
async fn what_a_deployment_replaced_is_known_for_a_while_and_is_not_what_was_last_asked() {
    let records = Arc::new(MemoryRecords::new());
    let directory = Directory::open(records.clone()).await.unwrap();
    let gateway = directory.create_gateway(gateway(OrganizationId(Uuid::new_v4()), "gw-1", 1)).await.unwrap().id;
    let rows: Vec<_> = (0..=EARLIER_MAX).map(|_| deployment("a", gateway)).collect();
    for (seq, row) in (1..).zip(&rows) {
        directory.begin_deployments(vec![row.clone()]).await.unwrap();
        assert_eq!(directory.told_of_deployment(row.id), Some(Told { gateway, event: None }));
        let event = Some(Cursor { epoch: Epoch(7), seq: Seq(seq) });
        directory.end_deployments(vec![(row.id, event)], at(9)).await.unwrap();
    }
    let reopened = Directory::open(records).await.unwrap();
    for directory in [&directory, &reopened] {
        for (seq, row) in (1..).zip(&rows) {
            let event = Some(Cursor { epoch: Epoch(7), seq: Seq(seq) });
            assert_eq!(directory.told_of_deployment(row.id), Some(Told { gateway, event }));
        }
        assert_eq!(directory.deployment(&rows[0].api, gateway).map(|row| row.id), rows.last().map(|row| row.id));
    }
    assert_eq!(directory.settle_deployment(gateway, rows[0].id, at(10)).await.unwrap(), None);
    tell(&directory, vec![deployment("a", gateway)]).await;
    assert_eq!(directory.told_of_deployment(rows[0].id), None, "so many were asked for since");
    assert!(directory.told_of_deployment(rows[1].id).is_some());
    directory.delete_gateway(gateway).await.unwrap();
    assert!(rows.iter().all(|row| directory.told_of_deployment(row.id).is_none()));
}

#[tokio::test]
async fn what_gateways_were_told_of_a_deleted_api_is_known_and_is_no_deployment() {
    let records = Arc::new(MemoryRecords::new());
    let directory = Directory::open(records.clone()).await.unwrap();
    let gateway = directory.create_gateway(gateway(OrganizationId(Uuid::new_v4()), "gw-1", 1)).await.unwrap().id;
    let (deploying, deleting) = (deployment("a", gateway), deployment("a", gateway));
    let deleting = Deployment { status: DeploymentStatus::Undeploying, ..deleting };
    tell(&directory, vec![deploying.clone()]).await;
    tell(&directory, vec![deleting.clone()]).await;
    assert!(directory.delete_api("a".parse().unwrap(), at(10)).await.unwrap());
    let told = Some(Told { gateway, event: Some(told()) });
    let reopened = Directory::open(records.clone()).await.unwrap();
    for directory in [&directory, &reopened] {
        assert!([&deploying, &deleting].iter().all(|row| directory.told_of_deployment(row.id) == told));
        assert_eq!((directory.deployment(&deleting.api, gateway), directory.deployments()), (None, Vec::new()));
        assert_eq!(directory.deployments_of_gateway(gateway), []);
    }
    assert!(!directory.delete_api("a".parse().unwrap(), at(11)).await.unwrap());
    assert!(directory.settle_deployment(gateway, deleting.id, at(11)).await.unwrap().is_some());

    // The API comes again: first in vain.
    let anew = deployment("a", gateway);
    directory.begin_deployments(vec![anew.clone()]).await.unwrap();
    directory.end_deployments(vec![(anew.id, None)], at(12)).await.unwrap();
    assert_eq!(directory.deployments(), []);
    tell(&directory, vec![anew.clone()]).await;
    assert_eq!(directory.deployments().len(), 1);
    assert!([&deploying, &deleting, &anew].iter().all(|row| directory.told_of_deployment(row.id) == told));
    assert!(directory.delete_api("a".parse().unwrap(), at(13)).await.unwrap());
    directory.delete_gateway(gateway).await.unwrap();
    assert_eq!(directory.told_of_deployment(anew.id), None);
    assert_eq!(records.scan(Table::Deployments).await.unwrap(), []);
}

#[test]
fn of_deleted_apis_so_many_deployments_are_known() {
    let mut model = Model::default();
    let gateway = GatewayId(Uuid::new_v4());
    for n in 0..DELETED_MAX {
        let deleted_at = Some(at(i64::try_from(n).unwrap()));
        let row = Deployment { deleted_at, ..deployment(&n.to_string(), gateway) };
        model.apply(Edit::PutDeployment(Arc::new(row)));
    }
    model.apply(Edit::PutDeployment(Arc::new(deployment("last", gateway))));
    let now = at(i64::try_from(DELETED_MAX).unwrap());
    super::deployments::deletion(&model, &"last".parse().unwrap(), now).into_iter().for_each(|edit| model.apply(edit));
    assert_eq!((model.deployments().count(), model.deleted_deployments().len()), (DELETED_MAX, DELETED_MAX));
    let is_known = |api: &str| model.deployment(&api.parse().unwrap(), gateway).is_some();
    assert!(!is_known("0") && is_known("1") && is_known("last"));
}

#[tokio::test]
async fn a_certificates_name_is_of_one_gateway_until_that_lets_it_go() {
    let (directory, _) = open().await;
    let named = |name: &str, names: &[&str]| {
        let certificate_names = names.iter().map(|name| (*name).to_owned()).collect();
        Gateway { access: Access { certificate_names, ..Access::default() }, ..gateway(organization(), name, 1) }
    };
    let of = |name: &str| directory.gateway_of_certificate(name).map(|gateway| gateway.id);
    let first = directory.create_gateway(named("first", &["a.example", "b.example"])).await.unwrap();
    assert_eq!((of("a.example"), of("b.example"), of("c.example")), (Some(first.id), Some(first.id), None));
    let taken = directory.create_gateway(named("second", &["b.example"])).await;
    assert!(matches!(taken, Err(DirectoryError::CertificateNameTaken(name)) if name == "b.example"));
    let second = directory.create_gateway(named("second", &["c.example"])).await.unwrap();
    let to = |names: &[&str]| GatewayUpdate {
        display_name: "".into(),
        description: None,
        vhost: None,
        catch_up: CatchUp::Live,
        access: named("", names).access,
    };
    assert!(directory.update_gateway(second.id, to(&["a.example"]), at(2)).await.is_err());
    directory.update_gateway(first.id, to(&["b.example"]), at(2)).await.unwrap();
    directory.update_gateway(second.id, to(&["a.example"]), at(2)).await.unwrap();
    assert_eq!((of("a.example"), of("b.example"), of("c.example")), (Some(second.id), Some(first.id), None));
    directory.delete_gateway(second.id).await.unwrap();
    assert_eq!(of("a.example"), None);
}

#[test]
fn a_gateway_of_the_first_version_may_come_from_anywhere() {
    let mut row = serde_json::to_value(gateway(organization(), "edge", 1)).unwrap();
    row.as_object_mut().unwrap().remove("access").unwrap();
    assert_eq!(serde_json::from_value::<Gateway>(row).unwrap().access, Access::default());
}
