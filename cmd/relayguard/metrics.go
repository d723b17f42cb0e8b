package main

import (
	"context"
	"io"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"

	"relayguard/cmd/internal/control"
	"relayguard/cmd/internal/forwards"
)

func newMetrics() *cobra.Command {
	return &cobra.Command{
		Use:   "metrics",
		Short: "print what the daemon counts, for Prometheus",
		Long: strings.TrimSpace(`
Prints the daemon's counters in the text format of Prometheus. The daemon listens on
no port: let a timer write this into the textfile directory of node_exporter, or have
another exporter run it. No label has anything that a sender chose.

Exit status: 0; 2 usage; 3 cannot tell.`),
		Example: "  cd /var/lib/prometheus/node-exporter && relayguard metrics >relayguard.prom.new && mv relayguard.prom.new relayguard.prom",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, _, err := asker(cmd)
			if err != nil {
				return err
			}
			text, err := client.Text(cmd.Context(), "/v1/metrics")
			if err != nil {
				return answerOf(err)
			}
			_, err = io.WriteString(cmd.OutOrStdout(), text)
			return shown(err)
		},
	}
}

// metric is one of what status has, as Prometheus names it. Its labels are of
// closed sets.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(*status) map[string]float64 // by the value of its label, "" without one
}

func counter(name, help, label string, read func(*status) map[string]float64) metric {
	return newMetric(prometheus.CounterValue, name+"_total", help, label, read)
}

func gauge(name, help string, read func(*status) float64) metric {
	return newMetric(prometheus.GaugeValue, name, help, "", func(s *status) map[string]float64 { return map[string]float64{"": read(s)} })
}

func gaugeBy(name, help, label string, read func(*status) map[string]float64) metric {
	return newMetric(prometheus.GaugeValue, name, help, label, read)
}

func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.Unix())
}

func total(name, help string, read func(*status) int64) metric {
	return counter(name, help, "", func(s *status) map[string]float64 { return map[string]float64{"": float64(read(s))} })
}

func newMetric(kind prometheus.ValueType, name, help, label string, read func(*status) map[string]float64) metric {
	var labels []string
	if label != "" {
		labels = []string{label}
	}
	return metric{prometheus.NewDesc("relayguard_"+name, help, labels, nil), kind, read}
}

func floats(all map[string]int64) map[string]float64 {
	out := make(map[string]float64, len(all))
	for name, n := range all {
		out[name] = float64(n)
	}
	return out
}

func flag(on bool) float64 {
	if on {
		return 1
	}
	return 0
}

// metrics are all there are.
var metrics = []metric{
	counter("messages", "Messages decided, by verdict.", "verdict", func(s *status) map[string]float64 {
		return floats(s.Messages)
	}),
	total("refused_recipients", "Recipients refused before there was a message.", func(s *status) int64 { return s.Refused }),
	gauge("connections", "Connections from the MTA.", func(s *status) float64 { return float64(s.Open) }),
	gauge("incidents_open", "Open incidents.", func(s *status) float64 { return float64(len(s.Incidents)) }),
	gauge("suspended", "Suspensions in force.", func(s *status) float64 { return float64(len(s.Suspended)) }),
	gauge("stopped", "1 while all mail to the outside is held.", func(s *status) float64 { return flag(s.Stopped != nil) }),
	gauge("held_messages", "Messages that relayguard holds.", func(s *status) float64 { return float64(s.Held.Messages) }),
	gauge("held_bytes", "Octets that relayguard holds.", func(s *status) float64 { return float64(s.Held.Bytes) }),
	gauge("paced_messages", "Held messages that wait for budget.", func(s *status) float64 { return float64(s.Waiting) }),
	gauge("journal_up", "0 if what is decided may not outlive a crash.", func(s *status) float64 { return flag(s.Journal.OK) }),
	gauge("store_up", "0 if the limits' store is away or cannot keep what is counted.", func(s *status) float64 { return flag(s.Store.OK) }),
	gauge("store_away", "1 while Redis is away and this relay goes by its own budgets.", func(s *status) float64 { return flag(s.Store.Away) }),
	gauge("orders_shared", "0 while other relays may not have this one's orders.", func(s *status) float64 { return flag(s.Relays == "") }),
	gauge("store_buckets", "Budgets in this daemon's memory.", func(s *status) float64 { return float64(s.Store.Buckets) }),
	total("store_fallback_steps", "Messages whose limits were decided without Redis.", func(s *status) int64 { return s.Store.Fallbacks }),
	total("store_unsure_steps", "Charges that Redis may have taken without saying so.", func(s *status) int64 { return s.Store.Unsure }),
	total("store_forgotten_buckets", "Budgets forgotten before their time, for want of room.", func(s *status) int64 { return int64(s.Store.Forgotten) }),
	counter("deliveries", "Deliveries in the MTA's log, by what became of them.", "status", func(s *status) map[string]float64 {
		return map[string]float64{"sent": float64(s.Log.Delivered), "deferred": float64(s.Log.Deferred), "bounced": float64(s.Log.Bounced)}
	}),
	gauge("sites_registered", "Web sites whose signature is believed.", func(s *status) float64 { return float64(s.Origins.Sites) }),
	total("site_stamps_believed", "Messages with a site's stamp that was believed.", func(s *status) int64 { return s.Origins.SiteStamps.Believed }),
	counter("site_stamps_refused", "Messages with a site's stamp that was not believed, by reason.", "reason", func(s *status) map[string]float64 { return floats(s.Origins.SiteStamps.Refused) }),
	total("node_stamps_believed", "Messages with a web node's stamp that was believed.", func(s *status) int64 { return s.Origins.NodeStamps.Believed }),
	counter("node_stamps_refused", "Messages with a web node's stamp that was not believed, by reason.", "reason", func(s *status) map[string]float64 { return floats(s.Origins.NodeStamps.Refused) }),
	counter("node_messages", "Messages of web nodes, by whether the node's word on where they are from is known.", "signed", func(s *status) map[string]float64 {
		return map[string]float64{"yes": float64(s.Origins.Signed), "no": float64(s.Origins.Unsigned)}
	}),
	counter("wrapper_calls", "Calls of the sendmail wrapper, by what became of them.", "outcome", func(s *status) map[string]float64 {
		c := &s.Origins.Calls
		return map[string]float64{"accepted": float64(c.Accepted), "refused": float64(c.Refused), "turned_away": float64(c.Turned), "broken": float64(c.Broken)}
	}),
	gauge("text_parts", "Parts of texts that are remembered, of origin.template_parts.", func(s *status) float64 { return float64(s.Origins.Texts) }),
	gauge("forwards_watched", "1 while forwarding rules are watched, and the last scan of all went well.", func(s *status) float64 { return flag(s.Forwards != nil && s.Forwards.Error == "") }),
	gauge("forwards_due", "Forwarding rules that should be looked at and are not approved.", func(s *status) float64 { return float64(s.forwards().Due) }),
	gauge("forwards_known", "Forwarding rules that do not end inside.", func(s *status) float64 { return float64(s.forwards().Findings) }),
	gauge("forwards_gaps", "Places of forwarding rules that could not be read.", func(s *status) float64 { return float64(len(s.forwards().Gaps)) }),
	gauge("forwards_scan_seconds", "How long the last scan of all places took.", func(s *status) float64 { return s.forwards().Took.Seconds() }),
	gauge("rbl_watched", "1 while the own addresses are checked on blocklists, lists answer, and the history can be kept.", func(s *status) float64 {
		return flag(s.Blocklists != nil && s.Blocklists.Error == "" && s.Blocklists.Unchecked == "")
	}),
	gaugeBy("rbl_listings", "Confirmed listings of own addresses and domains, by severity.", "severity", func(s *status) map[string]float64 { return floats(s.blocklists().Severity) }),
	gaugeBy("rbl_results", "Answers of the last round, by what they mean: wide ones name networks only, info harms nobody.", "result", func(s *status) map[string]float64 { return floats(s.blocklists().Results) }),
	gaugeBy("rbl_zones", "Blocklists in the last round, each once for IPv4, IPv6 and domains, by whether they can be believed.", "state", func(s *status) map[string]float64 { return floats(s.blocklists().Zones) }),
	gauge("rbl_last_round_timestamp_seconds", "When the last round began, 0: none yet.", func(s *status) float64 { return seconds(s.blocklists().Watch.Last) }),
	counter("rbl_queries", "Questions to resolvers, by how they ended.", "outcome", func(s *status) map[string]float64 { return floats(s.blocklists().queries()) }),
	total("auth_failures", "Failed logins in the MTA's log.", func(s *status) int64 { return s.Log.AuthFailed }),
}

// forwards is how the watch over forwarding rules stands; zero without one.
func (s *status) forwards() forwards.Status {
	if s.Forwards == nil {
		return forwards.Status{}
	}
	return *s.Forwards
}

// exporter reads them all out of one status.
type exporter struct{ status func() status }

// Describe implements prometheus.Collector.
func (e exporter) Describe(out chan<- *prometheus.Desc) {
	for _, m := range metrics {
		out <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (e exporter) Collect(out chan<- prometheus.Metric) {
	s := e.status()
	for _, m := range metrics {
		for label, value := range m.read(&s) {
			var labels []string
			if label != "" {
				labels = []string{label}
			}
			out <- prometheus.MustNewConstMetric(m.desc, m.kind, value, labels...)
		}
	}
}

// metricsOperation serves them.
func (d *daemon) metricsOperation(m *control.Mux) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(exporter{func() status {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		return d.status(ctx, time.Now())
	}})
	control.Serve(m, "GET /v1/metrics", control.Read, promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
}
