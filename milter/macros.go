package milter

import "bytes"

// macros keeps the macro packets of a connection by stage, as they came: most
// are never asked for. Values are valid until the stage's next packet.
type macros struct {
	stages [len(stageOrder)][]byte
	sent   [len(stageOrder)]bool
}

// stageOrder lists the stages whose macros are kept, the latest first: that is
// the order in which a name is looked up. Those of header and body frames
// repeat what EOM brings and are dropped.
const stageOrder = "ETRMHC"

// connectStages are the macros that belong to the connection, not to a message.
const connectStages = "HC"

// set keeps the packet (pairs of NUL-terminated strings) of a stage.
func (m *macros) set(stage byte, packet []byte) {
	for i := range len(stageOrder) {
		if stageOrder[i] == stage {
			m.stages[i] = append(m.stages[i][:0], packet...)
			m.sent[i] = true
			return
		}
	}
}

// get returns the latest value of a macro; nil if no stage has it. Names are as
// on the wire: "i", "{auth_authen}".
func (m *macros) get(name string) []byte {
	for i := range m.stages {
		if !m.sent[i] {
			continue
		}
		for p := m.stages[i]; len(p) > 0; {
			n := bytes.IndexByte(p, 0)
			v := bytes.IndexByte(p[n+1:], 0)
			if string(p[:n]) == name {
				return p[n+1 : n+1+v]
			}
			p = p[n+v+2:]
		}
	}
	return nil
}

// endMessage forgets what belongs to the message.
func (m *macros) endMessage() { m.forget(len(stageOrder) - len(connectStages)) }

// newClient forgets all but the macros of connect, which come before it.
func (m *macros) newClient() { m.forget(len(stageOrder) - 1) }

// endSession forgets everything.
func (m *macros) endSession() { m.forget(len(stageOrder)) }

// forget drops the n latest stages.
func (m *macros) forget(n int) { clear(m.sent[:n]) }
