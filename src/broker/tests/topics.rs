use super::{client::*, *};
use crate::{
    broker::{
        backup::BackupError,
        meta::{TopicRecord, file::Contents},
    },
    disk::{
        Disk,
        testing::{Fault, Image, SimDisk},
    },
    wire::{ApiKey, ErrorCode, StrBytes, messages::*},
};

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn asked(topic: &str) -> metadata_request::MetadataRequestTopic {
    metadata_request::MetadataRequestTopic::default().with_name(Some(name(topic)))
}

#[tokio::test]
async fn metadata_makes_a_topic_and_answers_the_address_that_was_reached() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    for version in versions(ApiKey::Metadata) {
        let topic = format!("made-{version}");
        let request = MetadataRequest::default().with_topics(Some(vec![asked(&topic)]));
        let response = client.ask(version, request).await;
        assert_eq!(response.topics[0].error_code, 0, "{version}");
        assert_eq!(response.topics[0].partitions.len(), 1);
        let node = &response.brokers[0];
        assert_eq!((&node.host[..], node.port), ("127.0.0.1", i32::from(served.address.port())));
        let all = MetadataRequest::default().with_topics((version > 0).then(Vec::new));
        let none =
            client.ask(version, all.with_topics(if version > 0 { None } else { Some(vec![]) }));
        let count = usize::try_from(version).unwrap() + 1;
        assert_eq!(none.await.topics.len(), count, "{version}: all topics");
    }
    let request = MetadataRequest::default()
        .with_topics(Some(vec![asked("not-made"), asked("not/legal")]))
        .with_allow_auto_topic_creation(false);
    let response = client.ask(9, request).await;
    let codes: Vec<i16> = response.topics.iter().map(|topic| topic.error_code).collect();
    assert_eq!(codes, [3, ErrorCode::InvalidTopic.code()]);
    served.stop().await.unwrap();
}

#[tokio::test]
async fn topics_are_created_as_asked_or_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    let creatable =
        |topic: &str, partitions: i32, replication: i16, config: Option<(&str, &str)>| {
            let config = config.map(|(name, value)| {
                create_topics_request::CreatableTopicConfig::default()
                    .with_name(text(name))
                    .with_value(Some(text(value)))
            });
            create_topics_request::CreatableTopic::default()
                .with_name(name(topic))
                .with_num_partitions(partitions)
                .with_replication_factor(replication)
                .with_configs(config.into_iter().collect())
        };
    for version in versions(ApiKey::CreateTopics) {
        let topic = format!("v{version}");
        let compact = Some(("cleanup.policy", "compact"));
        let request = CreateTopicsRequest::default().with_topics(vec![
            creatable(&topic, 3, 1, compact),
            creatable("bad/name", 1, 1, None),
            creatable("a", 0, 1, None),
            creatable("b", 1, 3, None),
            creatable("c", 1, 1, Some(("no.such", "1"))),
            creatable("d", 1, 1, Some(("message.timestamp.type", "LogAppendTime"))),
            creatable("task-events", 1, 1, compact),
            creatable("twice", 1, 1, None),
            creatable("twice", 1, 1, None),
            creatable("e", 100_000, 1, None),
        ]);
        let response = client.ask(version, request).await;
        let codes: Vec<i16> = response.topics.iter().map(|topic| topic.error_code).collect();
        assert_eq!(codes, [0, 17, 37, 38, 40, 40, 44, 42, 42, 44], "{version}");
        if version >= 5 {
            let configs = response.topics[0].configs.as_ref().unwrap();
            let policy = configs.iter().find(|config| &*config.name == "cleanup.policy").unwrap();
            assert_eq!((policy.value.as_deref(), policy.config_source), (Some("compact"), 1));
            assert!(response.topics.iter().all(|topic| topic.configs.is_some()));
        }
        let again = CreateTopicsRequest::default().with_topics(vec![creatable(&topic, 1, 1, None)]);
        assert_eq!(client.ask(version, again).await.topics[0].error_code, 36);
    }
    let dry = CreateTopicsRequest::default().with_topics(vec![creatable("dry", -1, -1, None)]);
    let response = client.ask(7, dry.with_validate_only(true)).await;
    assert_eq!((response.topics[0].error_code, response.topics[0].num_partitions), (0, 1));
    assert_eq!(served.broker.partition_count(&topic("dry")), 0);
    served.stop().await.unwrap();
}

#[tokio::test]
async fn a_deleted_topic_is_gone_with_its_files_and_can_be_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    for version in versions(ApiKey::DeleteTopics) {
        client.create("a", 2).await;
        assert_eq!(client.produce("a", batch(&["old"])).await, (0, 0));
        let request =
            DeleteTopicsRequest::default().with_topic_names(vec![name("a"), name("none")]);
        let response = client.ask(version, request).await;
        let codes: Vec<i16> = response.responses.iter().map(|topic| topic.error_code).collect();
        assert_eq!(codes, [0, 3], "{version}");
        assert_eq!(client.produce("a", batch(&["x"])).await, (3, -1));
        assert_eq!(std::fs::read_dir(dir.path().join("log")).unwrap().count(), 0);
    }
    client.create("task-events", 1).await;
    let request = DeleteTopicsRequest::default().with_topic_names(vec![name("task-events")]);
    let response = client.ask(5, request).await;
    assert_eq!(response.responses[0].error_code, ErrorCode::PolicyViolation.code());
    served.stop().await.unwrap();
}

#[tokio::test]
async fn a_deletion_that_fails_or_is_cut_at_any_call_leaves_all_of_a_topic_or_nothing() {
    let path = Path::new("/simulated");
    let start = async |disk: &SimDisk| {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        Broker::start_on(disk, options(path), Clock::manual(1), Arc::default()).await.unwrap()
    };
    let names = |disk: &SimDisk| disk.dir(&path.join("log")).unwrap().list().unwrap();
    for fault in [Fault::Error(std::io::ErrorKind::Other), Fault::PowerOff] {
        for call in 0.. {
            let disk = SimDisk::new(Image::default(), Clock::manual(1));
            let broker = start(&disk).await;
            let topic = crate::position::TopicName::new("a").unwrap();
            broker.topics().create(topic.clone(), 3, Default::default()).await.unwrap();
            disk.fail_at(disk.calls() + call, fault);
            let deleted = broker.topics().delete(topic.clone()).await;
            let is_over = disk.failed().is_empty();
            let image = disk.image();
            drop(broker.close().await); // as far as the disk lets it

            let disk = SimDisk::new(image, Clock::manual(1));
            let broker = start(&disk).await;
            let is_there = broker.topics().find("a").is_some();
            assert!(!(deleted.is_ok() && is_there), "call {call}: it was deleted");
            let expected: &[&str] = if is_there { &["a-0", "a-1", "a-2"] } else { &[] };
            let mut left = names(&disk);
            left.sort();
            assert_eq!(left, expected, "{fault:?} at call {call}");
            broker.close().await.unwrap();
            if is_over {
                assert!(call > 4, "it met no fault at {call}");
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_stray_directory_is_never_taken_for_a_new_topic() {
    let dir = tempfile::tempdir().unwrap();
    serve(dir.path()).await.stop().await.unwrap();
    let stray = dir.path().join("log/a-0");
    std::fs::create_dir_all(&stray).unwrap();
    std::fs::write(stray.join("00000000000000000000.log"), batch(&["stray"])).unwrap();
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    client.create("a", 1).await;
    assert_eq!(client.produce("a", batch(&["mine"])).await, (0, 0));
    assert_eq!(client.values("a", 0).await, ["mine"]);
    served.stop().await.unwrap();
}

#[tokio::test]
async fn an_empty_directory_of_an_attempt_that_failed_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let left = dir.path().join("log/a-0");
    std::fs::create_dir_all(&left).unwrap();
    std::fs::write(left.join("00000000000000000000.log"), []).unwrap();
    served.client().await.create("a", 1).await;
    let names: Vec<_> = std::fs::read_dir(dir.path().join("log")).unwrap().collect();
    assert_eq!(names.len(), 1, "{names:?}");
    served.stop().await.unwrap();
}

#[tokio::test]
async fn partitions_are_added_and_stay_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    client.create("a", 1).await;
    let grow = |topic: &str, count: i32| {
        create_partitions_request::CreatePartitionsTopic::default()
            .with_name(name(topic))
            .with_count(count)
            .with_assignments(None)
    };
    let mut count = 1;
    for version in versions(ApiKey::CreatePartitions) {
        count += 1;
        let request = CreatePartitionsRequest::default().with_topics(vec![
            grow("a", count),
            grow("none", 2),
            grow("a", 1),
        ]);
        let response = client.ask(version, request).await;
        let codes: Vec<i16> = response.results.iter().map(|topic| topic.error_code).collect();
        assert_eq!(codes, [0, 3, 37], "{version}");
    }
    let last = produce("a", count - 1, -1, batch(&["x"]));
    assert_eq!(client.ask(9, last).await.responses[0].partition_responses[0].error_code, 0);
    served.stop().await.unwrap();
    let served = serve(dir.path()).await;
    assert_eq!(i64::from(served.broker.partition_count(&topic("a"))), i64::from(count));
    served.stop().await.unwrap();
}

fn alter(topic: &str, op: i8, key: &str, value: Option<&str>) -> IncrementalAlterConfigsRequest {
    let change = incremental_alter_configs_request::AlterableConfig::default()
        .with_name(text(key))
        .with_config_operation(op)
        .with_value(value.map(text));
    let resource = incremental_alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text(topic))
        .with_configs(vec![change]);
    IncrementalAlterConfigsRequest::default().with_resources(vec![resource])
}

async fn described(client: &mut Client, version: i16, topic: &str, key: &str) -> (String, i8) {
    let resource = describe_configs_request::DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text(topic))
        .with_configuration_keys(Some(vec![text(key)]));
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![resource])
        .with_include_synonyms(version % 2 == 0);
    let response = client.ask(version, request).await;
    let configs = &response.results[0].configs;
    assert_eq!(configs.len(), 1);
    (configs[0].value.as_ref().unwrap().to_string(), configs[0].config_source)
}

#[tokio::test]
async fn configs_are_altered_acted_on_and_described_with_their_source() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    client.create("a", 1).await;
    let key = "max.message.bytes";
    for version in versions(ApiKey::DescribeConfigs) {
        assert_eq!(described(&mut client, version, "a", key).await, ("1048588".to_owned(), 5));
    }
    for version in versions(ApiKey::IncrementalAlterConfigs) {
        let response = client.ask(version, alter("a", 0, key, Some("100"))).await;
        assert_eq!(response.responses[0].error_code, 0);
        assert_eq!(described(&mut client, 4, "a", key).await, ("100".to_owned(), 1));
        let too_large = ErrorCode::MessageTooLarge.code();
        let large = batch(&[&"x".repeat(100)]);
        assert_eq!(client.produce("a", large.clone()).await.0, too_large);
        assert_eq!(client.ask(version, alter("a", 1, key, None)).await.responses[0].error_code, 0);
        assert_eq!(client.produce("a", large).await.0, 0);
    }
    let policy = "cleanup.policy";
    client.ask(1, alter("a", 2, policy, Some("compact"))).await;
    assert_eq!(described(&mut client, 4, "a", policy).await.0, "delete,compact");
    client.ask(1, alter("a", 3, policy, Some("delete"))).await;
    assert_eq!(described(&mut client, 4, "a", policy).await.0, "compact");
    for (topic, op, key, value, code) in [
        ("a", 0, "retention.ms", Some("-5"), 40),
        ("a", 0, "no.such", Some("1"), 40),
        ("a", 2, "retention.ms", Some("1"), 40),
        ("a", 0, "retention.ms", None, 42),
        ("none", 0, "retention.ms", Some("1"), 3),
        ("task-events", 0, "cleanup.policy", Some("compact"), 44),
    ] {
        if topic == "task-events" {
            client.create(topic, 1).await;
            assert_eq!(described(&mut client, 4, topic, "retention.ms").await, ("-1".into(), 1));
        }
        let response = client.ask(1, alter(topic, op, key, value)).await;
        assert_eq!(response.responses[0].error_code, code, "{topic} {key} {value:?}");
    }
    served.stop().await.unwrap();
}

#[tokio::test]
async fn the_broker_and_the_cluster_describe_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    for version in versions(ApiKey::DescribeConfigs) {
        let resource = describe_configs_request::DescribeConfigsResource::default()
            .with_resource_type(4)
            .with_resource_name(text("1"))
            .with_configuration_keys(None);
        let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
        let response = client.ask(version, request).await;
        let configs = &response.results[0].configs;
        assert!(configs.iter().all(|config| config.config_source > 0 && config.value.is_some()));
        assert!(configs.iter().any(|config| &*config.name == "num.partitions"));
    }
    for version in versions(ApiKey::DescribeCluster) {
        let response = client.ask(version, DescribeClusterRequest::default()).await;
        assert_eq!((response.error_code, response.brokers.len()), (0, 1));
        assert_eq!(response.cluster_id.len(), 22);
    }
    served.stop().await.unwrap();
}

#[tokio::test]
async fn groups_are_served_on_the_same_port() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    client.create("a", 1).await;
    let request = FindCoordinatorRequest::default().with_key(text("g"));
    let response = client.ask(3, request).await;
    assert_eq!((response.error_code, response.port), (0, i32::from(served.address.port())));
    let partition =
        offset_commit_request::OffsetCommitRequestPartition::default().with_committed_offset(5);
    let committed = offset_commit_request::OffsetCommitRequestTopic::default()
        .with_name(name("a"))
        .with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_generation_id_or_member_epoch(-1)
        .with_group_instance_id(None)
        .with_topics(vec![committed]);
    let response = client.ask(8, request).await;
    assert_eq!(response.topics[0].partitions[0].error_code, 0);
    served.stop().await.unwrap();
}

#[tokio::test]
async fn a_topic_that_was_created_anew_during_a_backup_is_not_taken_for_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(&dir.path().join("data")).await;
    let broker = served.broker.clone();
    let topic = crate::position::TopicName::new("a").unwrap();
    broker.ensure_topic(&topic, 1).await.unwrap();
    let known = broker.topics().find("a").unwrap();
    let record = TopicRecord { id: known.id, partitions: 1, configs: known.configs.clone() };
    let contents = Contents { topics: [(topic.clone(), record)].into(), ..Contents::default() };
    let backup = dir.path().join("backup");
    assert_eq!(broker.copy_logs(&contents, &backup.join("first")).unwrap().len(), 1);
    broker.delete_topic(topic.clone()).await.unwrap();
    broker.ensure_topic(&topic, 1).await.unwrap();
    let copied = broker.copy_logs(&contents, &backup.join("second"));
    assert!(matches!(copied, Err(BackupError::Deleted(_))), "{copied:?}");
    served.stop().await.unwrap();
}
