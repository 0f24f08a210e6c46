DO $lz4$ BEGIN
	-- lz4 compresses faster than pglz. Some servers are built without it.
	IF EXISTS (SELECT FROM pg_settings WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals)) THEN
		ALTER TABLE "sessions" ALTER COLUMN "data" SET COMPRESSION lz4;
	END IF;
END $lz4$;
