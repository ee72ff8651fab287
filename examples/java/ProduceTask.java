// Sends a task with Kafka's own client. With kafka-clients and its slf4j-api in libs/:
//   java -cp 'libs/*' ProduceTask.java [TITLE [USER]]
import java.util.Properties;
import java.util.UUID;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

public class ProduceTask {
    public static void main(String[] args) throws Exception {
        String title = args.length > 0 ? args[0] : "From Java";
        String user = args.length > 1 ? args[1] : "dev";
        String bootstrap = System.getenv().getOrDefault("BOOTSTRAP", "localhost:9092");
        Properties settings = new Properties();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("acks", "all");

        String id = UUID.randomUUID().toString();
        // The same event_id again is a duplicate, so a retry is safe. A real program uses a JSON library.
        String event = """
            {"type":"task_created","event_id":"%s","data":{"id":"%s","title":"%s","user_id":"%s"}}"""
            .formatted(UUID.randomUUID(), id, quoted(title), quoted(user));
        try (var producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
            var place = producer.send(new ProducerRecord<>("task-events", id, event)).get();
            System.out.printf("task %s at %s/%d offset %d%n", id, place.topic(), place.partition(), place.offset());
        }
    }

    private static String quoted(String text) {
        return text.replace("\\", "\\\\").replace("\"", "\\\"");
    }
}
