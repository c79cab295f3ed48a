import io.confluent.parallelconsumer.ParallelConsumerOptions;
import io.confluent.parallelconsumer.ParallelConsumerOptions.ProcessingOrder;
import io.confluent.parallelconsumer.ParallelStreamProcessor;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.LongAdder;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerInterceptor;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Drains a topic by Parallel Consumer, each message handled for a while, and tells what it did in one line of JSON.
 *
 * <p>Arguments: broker, topic, group, messages, payload bytes, threads, UNORDERED or KEY, milliseconds of sleep.
 */
public final class Drain {
    private static final VarHandle LONGS = MethodHandles.byteArrayViewVarHandle(long[].class, ByteOrder.LITTLE_ENDIAN);

    private static final long GOLDEN = 0x9e3779b97f4a7c15L; // as in measure.Write

    public static void main(String[] args) throws Exception {
        String topic = args[1];
        long messages = Long.parseLong(args[3]);
        int size = Integer.parseInt(args[4]);
        long sleep = Long.parseLong(args[7]);
        KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(settings(args[0], args[2]));
        ParallelStreamProcessor<byte[], byte[]> processor = ParallelStreamProcessor.createEosStreamProcessor(
                ParallelConsumerOptions.<byte[], byte[]>builder()
                        .consumer(consumer)
                        .maxConcurrency(Integer.parseInt(args[5]))
                        .ordering(ProcessingOrder.valueOf(args[6]))
                        .build());
        AtomicLong count = new AtomicLong();
        LongAdder sum = new LongAdder();
        CountDownLatch done = new CountDownLatch(1);
        long begun = ProcessHandle.current().info().totalCpuDuration().orElseThrow().toNanos();
        long start = System.nanoTime();
        processor.subscribe(List.of(topic));
        processor.poll(context -> {
            sum.add(read(context.getSingleConsumerRecord().value(), size));
            try {
                Thread.sleep(sleep);
            } catch (InterruptedException e) {
                throw new IllegalStateException(e);
            }
            if (count.incrementAndGet() == messages) {
                done.countDown();
            }
        });
        done.await();
        processor.closeDontDrainFirst(); // all is done: to drain may wait for the next commit interval
        System.out.printf("{\"messages\":%d,\"sum\":%d,\"elapsed\":%d,\"peak\":%d,\"begun\":%d}%n",
                count.get(), sum.sum(), Commits.last - start, peak(), begun);
    }

    private static Map<String, Object> settings(String broker, String group) {
        return Map.of(
                ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, broker,
                ConsumerConfig.GROUP_ID_CONFIG, group,
                ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest",
                ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false,
                ConsumerConfig.MAX_POLL_RECORDS_CONFIG, 500,
                ConsumerConfig.INTERCEPTOR_CLASSES_CONFIG, Commits.class.getName(),
                ConsumerConfig.KEY_DESERIALIZER_CLASS_CONFIG, ByteArrayDeserializer.class,
                ConsumerConfig.VALUE_DESERIALIZER_CLASS_CONFIG, ByteArrayDeserializer.class);
    }

    /** Reads all of a message, and returns the number in it, or 0 when it is not whole. */
    private static long read(byte[] payload, int size) {
        if (payload.length != size) {
            return 0;
        }
        long first = (long) LONGS.get(payload, 0);
        long different = 0;
        for (int at = 8; at + 8 <= size; at += 8) {
            long word = at % 32 == 24 ? first * (GOLDEN + 2L * at) : first;
            different |= (long) LONGS.get(payload, at) ^ word;
        }
        return different == 0 ? first : 0;
    }

    /** The most that this process had resident, in bytes. */
    private static long peak() throws Exception {
        for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
            if (line.startsWith("VmHWM:")) {
                return Long.parseLong(line.replaceAll("\\D", "")) << 10;
            }
        }
        throw new IllegalStateException("/proc/self/status has no VmHWM");
    }

    /** Commits knows when the last commit was answered: to close takes longer, and is not counted. */
    public static final class Commits implements ConsumerInterceptor<byte[], byte[]> {
        static volatile long last;

        @Override
        public ConsumerRecords<byte[], byte[]> onConsume(ConsumerRecords<byte[], byte[]> records) {
            return records;
        }

        @Override
        public void onCommit(Map<TopicPartition, OffsetAndMetadata> offsets) {
            last = System.nanoTime();
        }

        @Override
        public void close() {}

        @Override
        public void configure(Map<String, ?> configs) {}
    }
}
