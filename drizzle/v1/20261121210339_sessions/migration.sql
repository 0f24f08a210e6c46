CREATE TABLE "sessions" (
	"id" text PRIMARY KEY,
	"data" json,
	"user_id" text,
	"version" integer DEFAULT 1 NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	"last_seen_at" timestamp with time zone DEFAULT now() NOT NULL,
	"expires_at" timestamp with time zone NOT NULL,
	"revoked_at" timestamp with time zone,
	"expires_hour" timestamp with time zone GENERATED ALWAYS AS (date_bin('1 hour', "expires_at", timestamptz '2000-01-01 00:00:00+00')) STORED
);
--> statement-breakpoint
CREATE INDEX "sessions_user_id_index" ON "sessions" ("user_id") WHERE "user_id" is not null;--> statement-breakpoint
CREATE INDEX "sessions_expires_hour_index" ON "sessions" ("expires_hour");