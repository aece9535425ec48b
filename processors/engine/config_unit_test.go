package engine

import (
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"
)

// valid is a configuration of defaults.
func valid() Config {
	return Config{Brokers: []string{"nowhere:1"}, Now: time.Now, Logger: slog.New(slog.DiscardHandler)}
}

// The least value of every setting is accepted, and the one below is refused by the setting's name.
func TestConfigBounds(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]func(c *Config, below bool){
		"brokers":          func(c *Config, below bool) { c.Brokers = c.Brokers[:1-one(below)] },
		"commit interval":  func(c *Config, below bool) { c.CommitInterval = time.Millisecond - time.Duration(one(below)) },
		"max dirty":        func(c *Config, below bool) { c.MaxDirty = 1 - 2*one(below) },
		"share keys":       func(c *Config, below bool) { c.ShareKeys = 1 - 2*one(below) },
		"decoded keys":     func(c *Config, below bool) { c.DecodedKeys = 1 - 2*one(below) },
		"max pending":      func(c *Config, below bool) { c.MaxPending = 1 - 2*one(below) },
		"frame records":    func(c *Config, below bool) { c.FrameRecords = 1 - 2*one(below) },
		"max batch":        func(c *Config, below bool) { c.MaxBatch = 1024 - one(below) },
		"out-of-orderness": func(c *Config, below bool) { c.Bound = -time.Duration(one(below)) },
		"idle timeout":     func(c *Config, below bool) { c.IdleTimeout = 1 - 2*time.Duration(one(below)) },
		"session timeout 99": func(c *Config, below bool) {
			c.CommitInterval, c.SessionTimeout = 1e6, 100*time.Millisecond-time.Duration(one(below))
		},
		"half the session": func(c *Config, below bool) {
			c.SessionTimeout, c.CommitInterval = time.Second, 500*time.Millisecond-1+time.Duration(one(below))
		},
		"state TTL 999.999":   func(c *Config, below bool) { c.StateTTL = time.Second - time.Duration(one(below)) },
		"max keys":            func(c *Config, below bool) { c.MaxKeys = -one(below) },
		`idle mode "holding"`: func(c *Config, below bool) { c.Idle = IdleHold + IdleMode(strings.Repeat("ing", one(below))) },
	} {
		c := valid()
		if set(&c, false); c.Validate() != nil {
			t.Errorf("%s: the least is refused: %v", name, c.Validate())
		}
		c = valid()
		if set(&c, true); c.Validate() == nil || !strings.Contains(c.Validate().Error(), name) || strings.Contains(c.Validate().Error(), "\n") {
			t.Errorf("%s: one below the least: %v", name, c.Validate())
		}
	}
}

func one(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// The zero value of a setting is its documented default, and what is set stays.
func TestConfigDefaults(t *testing.T) {
	t.Parallel()
	c := Config{}.withDefaults()
	for name, want := range map[string]any{
		"CommitInterval": 100 * time.Millisecond, "MaxDirty": 50_000, "ShareKeys": 4096, "DecodedKeys": 262_144, "MaxPending": 67_108_864,
		"FrameRecords": 1000, "MaxBatch": 900_000, "Bound": time.Duration(0), "IdleTimeout": 30 * time.Second, "Idle": IdleClock,
		"MaxFutureSkew": 24 * time.Hour, "SessionTimeout": 10 * time.Second, "WriteTimeout": time.Minute, "Backoff": 100 * time.Millisecond,
		"MaxBackoff": 15 * time.Second, "StateTTL": time.Duration(0), "MaxKeys": 0,
	} {
		if got := reflect.ValueOf(c).FieldByName(name).Interface(); got != want {
			t.Errorf("%s is %v, documented as %v", name, got, want)
		}
	}
	if c = (Config{MaxDirty: 7, Backoff: 8}).withDefaults(); c.MaxDirty != 7 || c.Backoff != 8 || c.Kafka == nil || c.Registerer == nil {
		t.Errorf("what is set became %d and %v", c.MaxDirty, c.Backoff)
	}
}

// A member is heard of often within its session, a coordinator that moves is waited for some seconds, and a request that is not answered
// is given up before the write that it belongs to.
func TestKafkaTimeouts(t *testing.T) {
	t.Parallel()
	c := valid().withDefaults()
	s := c.sarama()
	if beat := s.Consumer.Group.Heartbeat.Interval; beat <= 0 || beat*4 > c.SessionTimeout {
		t.Errorf("a heartbeat every %v in a session of %v", beat, c.SessionTimeout)
	}
	retry := s.Consumer.Group.Rebalance.Retry
	if wait := time.Duration(retry.Max) * retry.Backoff; wait != 8*time.Second || retry.Backoff > time.Second {
		t.Errorf("a coordinator is waited for %v in steps of %v", wait, retry.Backoff)
	}
	if wait := time.Duration(s.Metadata.Retry.Max) * s.Metadata.Retry.Backoff; wait != 2*time.Second {
		t.Errorf("metadata are waited for %v", wait)
	}
	if s.Producer.Timeout >= s.Net.ReadTimeout || s.Net.ReadTimeout >= c.WriteTimeout || s.Net.DialTimeout > s.Net.ReadTimeout {
		t.Errorf("a broker waits %v for its replicas, we %v for the broker, a write lasts %v", s.Producer.Timeout, s.Net.ReadTimeout, c.WriteTimeout)
	}
	if s.Consumer.MaxWaitTime > c.CommitInterval*10 || s.Consumer.MaxWaitTime < 10*time.Millisecond {
		t.Errorf("a fetch waits %v", s.Consumer.MaxWaitTime)
	}
	if s.Consumer.Fetch.Default != 1_048_576 {
		t.Errorf("a fetch takes %d bytes", s.Consumer.Fetch.Default)
	}
	static := func(c Config) bool { return c.sarama().Consumer.Group.Rebalance.GroupStrategies[0].(keeping).static }
	if static(c) {
		t.Error("a member without a name is static")
	}
	if c.InstanceID = "r1"; !static(c) {
		t.Error("a member with a name is not static")
	}
}
