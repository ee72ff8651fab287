# Sourced: where the jars are, and `tool NAME ARGS`, which runs one of Kafka's own tools.
JAVA_FOLDER=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
LIBS=${KAFKA_LIBS:-${XDG_CACHE_HOME:-$HOME/.cache}/taskwire-compat-kafka-4.3.1}

tool() {
  local name=$1 class tools=org.apache.kafka.tools
  shift
  case $name in
    topics) class=$tools.TopicCommand ;;
    configs) class=kafka.admin.ConfigCommand ;;
    consumer-groups) class=$tools.consumer.group.ConsumerGroupCommand ;;
    producer) class=$tools.ConsoleProducer ;;
    consumer) class=$tools.consumer.ConsoleConsumer ;;
    producer-perf) class=$tools.ProducerPerformance ;;
    consumer-perf) class=$tools.ConsumerPerformance ;;
    get-offsets) class=$tools.GetOffsetShell ;;
    broker-api-versions) class=$tools.BrokerApiVersionsCommand ;;
    dump-log) class=$tools.DumpLogSegments ;;
    verifiable-producer) class=$tools.VerifiableProducer ;;
    verifiable-consumer) class=$tools.VerifiableConsumer ;;
    *) echo "unknown tool $name" >&2; return 2 ;;
  esac
  java -Xmx256m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC \
    -Dlog4j2.configurationFile="$JAVA_FOLDER/log4j2.properties" -cp "$LIBS/*" "$class" "$@"
}
