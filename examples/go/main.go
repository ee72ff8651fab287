// Command produce sends a task with franz-go: go mod tidy && go run . [TITLE [USER]]
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

type event struct {
	Type    string `json:"type"`
	EventID string `json:"event_id"` // the same id again is a duplicate, so a retry is safe
	Data    data   `json:"data"`
}

type data struct {
	ID     string `json:"id"`
	Title  string `json:"title"`
	UserID string `json:"user_id"`
}

func main() {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(variable("BOOTSTRAP", "localhost:9092")),
		kgo.DefaultProduceTopic("task-events"),
		kgo.AllowAutoTopicCreation(),
	)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	id := rand.Text()
	value, err := json.Marshal(event{"task_created", rand.Text(), data{id, argument(1, "From Go"), argument(2, "dev")}})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	record, err := client.ProduceSync(ctx, &kgo.Record{Key: []byte(id), Value: value}).First()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("task %s at %s/%d offset %d\n", id, record.Topic, record.Partition, record.Offset)
}

func argument(index int, otherwise string) string {
	if index < len(os.Args) {
		return os.Args[index]
	}
	return otherwise
}

func variable(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}
