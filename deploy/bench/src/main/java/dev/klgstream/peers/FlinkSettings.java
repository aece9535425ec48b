package dev.klgstream.peers;

import java.time.Duration;
import org.apache.flink.configuration.CheckpointingOptions;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.MemorySize;
import org.apache.flink.configuration.RestartStrategyOptions;
import org.apache.flink.configuration.StateBackendOptions;
import org.apache.flink.configuration.TaskManagerOptions;
import org.apache.flink.core.execution.CheckpointingMode;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;

/** How both Flink jobs run. */
final class FlinkSettings {
  private FlinkSettings() {}

  static StreamExecutionEnvironment environment(Main.Job job, MemorySize managed) throws Exception {
    Configuration c = new Configuration();
    // State on the heap is the fastest there is, and it fits.
    c.set(StateBackendOptions.STATE_BACKEND, "hashmap");
    // State survives a crash, once a second: a tenth as often as klgstream's, because each checkpoint writes all state.
    c.set(CheckpointingOptions.CHECKPOINTING_INTERVAL, Duration.ofSeconds(1));
    c.set(CheckpointingOptions.CHECKPOINT_STORAGE, "filesystem");
    c.set(CheckpointingOptions.CHECKPOINTS_DIRECTORY, "file://" + java.nio.file.Files.createTempDirectory("flink-checkpoints"));
    c.set(CheckpointingOptions.CHECKPOINTING_CONSISTENCY_MODE, CheckpointingMode.EXACTLY_ONCE);
    c.set(TaskManagerOptions.MANAGED_MEMORY_SIZE, managed);
    c.set(TaskManagerOptions.NETWORK_MEMORY_MIN, MemorySize.ofMebiBytes(64));
    c.set(TaskManagerOptions.NETWORK_MEMORY_MAX, MemorySize.ofMebiBytes(64));
    // A job that fails is to be seen failing, not to start again for ever.
    c.set(RestartStrategyOptions.RESTART_STRATEGY, "none");
    StreamExecutionEnvironment env = StreamExecutionEnvironment.createLocalEnvironment(job.parallelism(), c);
    // Nothing here keeps an object it was given, so none need be copied between operators.
    env.getConfig().enableObjectReuse();
    env.getConfig().setAutoWatermarkInterval(200);
    return env;
  }
}
