package main

import (
	"context"
	"database/sql"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"time"

	_ "github.com/mattn/go-sqlite3" // the driver
)

// plainBatch writes buckets as plainly as SQLite does it: upserts with one
// prepared statement in transactions of 100, no waiting for the disk.
type plainBatch struct {
	db   *sql.DB
	put  *sql.Stmt
	path string
}

const batchSize = 100

// newPlainBatch makes one on a copy of a store's file, which nobody has open.
func newPlainBatch(ctx context.Context, from string) (*plainBatch, error) {
	path := from + ".plain"
	if err := copyFile(from, path); err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite3", "file:"+path+"?_journal_mode=WAL&_synchronous=NORMAL")
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	db.SetMaxOpenConns(1)
	put, err := db.PrepareContext(ctx, `INSERT INTO bucket (key, expires, state) VALUES (?,?,?)
		ON CONFLICT DO UPDATE SET expires = excluded.expires, state = excluded.state`)
	if err != nil {
		db.Close()
		return nil, fmt.Errorf("prepare the plain batch: %w", err)
	}
	return &plainBatch{db, put, path}, nil
}

func (p *plainBatch) close() {
	p.db.Close()
	removeSQLite(p.path)
}

// write upserts buckets and returns rows a second.
func (p *plainBatch) write(ctx context.Context, buckets []int) (float64, error) {
	now := time.Now()
	type row struct {
		key, state []byte
		expires    int64
	}
	rows := make([]row, len(buckets))
	for i, bucket := range buckets {
		s := stateOf(bucket, now)
		key := binary.AppendUvarint(nil, uint64(len(s.Key.Limit)))
		state, _ := s.AppendBinary(nil) // there is no error
		rows[i] = row{append(append(key, s.Key.Limit...), s.Key.Value...), state, s.Expires().UnixMicro()}
	}
	began := time.Now()
	for len(rows) > 0 {
		some := rows[:min(batchSize, len(rows))]
		rows = rows[len(some):]
		tx, err := p.db.BeginTx(ctx, nil)
		if err != nil {
			return 0, fmt.Errorf("begin a plain batch: %w", err)
		}
		for _, r := range some {
			if _, err := tx.Stmt(p.put).Exec(r.key, r.expires, r.state); err != nil {
				_ = tx.Rollback()
				return 0, fmt.Errorf("write a plain batch: %w", err)
			}
		}
		if err := tx.Commit(); err != nil {
			return 0, fmt.Errorf("commit a plain batch: %w", err)
		}
	}
	return float64(len(buckets)) / time.Since(began).Seconds(), nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if closed := out.Close(); err == nil {
		err = closed
	}
	return err
}

// removeSQLite removes a database with its log.
func removeSQLite(path string) {
	for _, end := range []string{"", "-wal", "-shm", ".lock"} {
		_ = os.Remove(path + end) // the directory goes in the end anyway
	}
}
