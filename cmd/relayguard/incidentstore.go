package main

import (
	"encoding/json"
	"fmt"

	"relayguard/incident"
	"relayguard/journal"
)

// keptIncident is an incident as the journal keeps it: addresses of web clients
// apart, for they are forgotten before it.
func keptIncident(i incident.Incident) (journal.Incident, error) {
	r := journal.Incident{ID: i.ID, Origin: i.Origin, Account: i.Account, Cause: i.Cause, Noticed: i.Noticed, Opened: i.Opened, Updated: i.Updated, Closed: i.Closed,
		Stops: i.Stops, Recipients: i.Recipients}
	var err error
	if d := i.Details; d != nil && len(d.WebClients) > 0 {
		if r.Addresses, err = json.Marshal(d.WebClients); err != nil {
			return r, fmt.Errorf("write web clients: %w", err)
		}
		without := *d
		without.WebClients, i.Details = nil, &without
	}
	if r.State, err = json.Marshal(i); err != nil {
		return r, fmt.Errorf("write incident: %w", err)
	}
	return r, nil
}

// incidentOf reads it back. Addresses that cannot be read are left out.
func incidentOf(r journal.Incident) (i incident.Incident, err error) {
	if err = json.Unmarshal(r.State, &i); err != nil {
		return i, fmt.Errorf("read incident %s: %w", r.ID, err)
	}
	var clients []incident.Count
	if i.Details != nil && len(r.Addresses) > 0 && json.Unmarshal(r.Addresses, &clients) == nil {
		i.Details.WebClients = clients
	}
	return i, nil
}
